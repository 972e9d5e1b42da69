/** A question, the run that follows from it, and its answer, as they are shown. */

import { copy, make } from "../page/elements.js";
import { duration, some } from "../page/wording.js";
import { place } from "../page/views.js";
import { linked, listCitations } from "./cited.js";

const LONG = 300; // a question of so many characters may be higher than its place
const MARKS = { holds: "●", running: "◐", planned: "○", failed: "✗" };

export class Turn {
  /** @param {string} message @param {{ retry: () => void, settled?: boolean }} options */
  constructor(message, { retry, settled = false }) {
    const { element, parts } = copy("turn");
    this.element = element;
    this.part = parts;
    this.message = message;
    this.mode = "auto";
    /** @type {Map<string, keyof MARKS>} */
    this.goals = new Map();
    this.counts = new Map();
    /** @type {Map<string, string>} what each agent said */
    this.said = new Map();
    this.citations = [];
    this.summaries = [];
    this.recalled = false;
    this.started = performance.now();
    this.ended = settled;
    parts.asked.textContent = message;
    if (message.length > LONG) parts.asked.parentElement.tabIndex = 0; // so that the keyboard scrolls it, too
    parts.run.hidden = settled;
    parts.copy.addEventListener("click", () => this.#copy());
    parts.retry.addEventListener("click", retry);
    if (settled) this.#tools();
    else {
      parts.now.textContent = "sending …";
      element.setAttribute("aria-busy", "true");
    }
  }

  get text() {
    return [...this.said.values()].join("");
  }

  /** An event of the run. */
  take(kind, data) {
    this[`take_${kind}`]?.(data);
  }

  /** The server has it; at its first question it opens models before anything happens. */
  take_begun() {
    if (!this.goals.size) this.part.now.textContent = "begun; the first answer takes longest, while models are loaded …";
  }

  /** A goal that holds and that no plan has named held before anything was done: it is not shown. */
  take_plan({ situation, decision }) {
    const states = new Map(situation.holding.filter((goal) => this.goals.has(goal)).map((goal) => [goal, "holds"]));
    for (const step of decision.plan) states.set(step.goal, "planned");
    for (const step of decision.run) states.set(step.goal, "running");
    for (const [goal, state] of this.goals) if (state !== "failed" && !states.has(goal)) this.goals.delete(goal);
    for (const [goal, state] of states) this.goals.set(goal, state); // each stays where the first plan put it
    this.part.now.textContent = decision.why;
    this.#showGoals();
  }

  take_agent({ agent, state, goal, text }) {
    if (state === "failed") this.goals.set(goal, "failed");
    if (text) this.part.now.textContent = `${agent}: ${text}`;
    this.#showGoals();
  }

  take_progress(data) {
    this.part.now.textContent = `${data.agent}: ${data.text}`;
    if ("pages" in data) this.counts.set(data.topic, { pages: data.pages, passages: data.passages });
    this.#showCounts();
  }

  take_token({ agent = "", text }) {
    this.said.set(agent, (this.said.get(agent) ?? "") + text);
    this.#showAnswer();
  }

  /** An agent that was interrupted says something else now. */
  take_restart({ agent = "" }) {
    this.said.delete(agent);
    this.citations = [];
    this.#showAnswer();
    listCitations(this.part.citations, this.citations);
  }

  take_citation(citation) {
    this.citations.push(citation);
    this.#showAnswer();
    listCitations(this.part.citations, this.citations);
  }

  take_usage({ input_tokens, output_tokens, usd }) {
    const tokens = (input_tokens ?? 0) + (output_tokens ?? 0);
    this.usage = [tokens && some(tokens, "token"), usd && `${usd.toFixed(4)} USD`].filter(Boolean).join(", ");
  }

  take_error({ title, detail }) {
    if (title === "Cancelled") this.end("stopped");
    else {
      this.fail(detail || title);
      this.end("not answered");
    }
  }

  take_done({ answer, task_id: task, ...ended }) {
    const { outcome } = ended;
    if (!this.text && outcome?.status !== "failed") this.said.set("", answer ?? "");
    this.#showEnd(ended, task, this.resumed ? null : (performance.now() - this.started) / 1000);
  }

  /** What a stored conversation has of the answer. @param {number} seconds from the question to the answer */
  recall(content, metadata, seconds) {
    const { run, citations = [], tokens = {}, task_id: task } = metadata ?? {};
    this.recalled = true;
    this.citations = citations;
    if (run?.outcome?.status !== "failed") this.said.set("", content);
    listCitations(this.part.citations, citations);
    this.take_usage(tokens);
    this.part.run.hidden = !run; // what was stored by an older version has none
    this.#showEnd(run ?? {}, task, seconds);
  }

  /** A stored question without an answer. */
  unanswered() {
    this.part.run.hidden = false;
    this.end("No answer is kept: it was stopped, it failed, or it is made elsewhere.");
  }

  /** How a run ended: the same from its last event and from the conversation. */
  #showEnd({ outcome, report = {}, reply, ...rest }, task, seconds) {
    this.#showAnswer();
    const failed = outcome?.status === "failed";
    if (failed) this.fail(outcome.reason);
    this.goals = goalsOf(rest);
    this.counts.clear();
    for (const { topic, title, titles, pages, passages } of report.crawls ?? [])
      this.counts.set(topic ?? title, { pages: pages ?? titles.length, passages });
    this.#showCounts();
    if (reply?.abstained && reply.looked_at?.length) this.#showLookedAt(reply.looked_at);
    for (const summary of report.summaries ?? []) this.#showSummary(summary, !reply);
    for (const notice of outcome?.notices ?? []) this.part.more.append(make("p", { class: "notice" }, notice));
    if (task && (outcome || this.text)) this.part.plan.replaceChildren(make("a", { href: place("plan", task) }, "Why these steps"));
    const took = seconds === null ? "" : duration(seconds);
    this.end(outcome ? [outcome.status, took, this.usage].filter(Boolean).join(" · ") : "");
  }

  fail(words) {
    this.part.problem.textContent = words;
    this.part.problem.hidden = false;
  }

  /** Whatever was running runs no more. @param {string} words */
  end(words) {
    this.ended = true;
    for (const [goal, state] of this.goals) if (state === "running") this.goals.set(goal, "planned");
    this.part.now.textContent = words;
    this.element.setAttribute("aria-busy", "false");
    this.#showGoals();
    this.#tools();
  }

  /** Asking again is refused for so many seconds. @param {number} seconds */
  rest(seconds) {
    const until = performance.now() + 1000 * seconds;
    const tell = () => {
      const left = Math.ceil((until - performance.now()) / 1000);
      this.part.retry.disabled = left > 0;
      this.part.retry.textContent = left > 0 ? `Retry in ${left} s` : "Retry";
      if (left > 0) setTimeout(tell, 250);
    };
    tell();
  }

  #tools() {
    this.part.tools.hidden = false;
    this.part.copy.hidden = !this.text && !this.element.querySelector(".answer:not([hidden])");
  }

  async #copy() {
    const parts = this.summaries.length ? this.summaries : [{ text: this.text, citations: this.citations }];
    const lines = parts.flatMap(({ text, citations = [] }) =>
      [text, ...citations.map((cited) => `[${cited.number}] ${cited.title}, revision ${cited.revision}: ${cited.url}`)]);
    const copied = this.part.copy;
    try {
      await navigator.clipboard.writeText(lines.join("\n"));
      copied.textContent = "Copied";
    } catch {
      copied.textContent = "The browser did not allow it";
    }
    setTimeout(() => (copied.textContent = "Copy"), 2000);
  }

  #showGoals() {
    this.part.goals.replaceChildren(
      ...[...this.goals].map(([goal, state]) =>
        make("li", { class: state }, make("b", { "aria-hidden": "true" }, MARKS[state]), goal,
          make("span", { class: "unseen" }, ` ${state}`))));
  }

  #showCounts() {
    const sum = (name) => [...this.counts.values()].reduce((total, one) => total + (one[name] ?? 0), 0);
    this.part.counts.textContent = this.counts.size ? `${some(sum("pages"), "page")}, ${some(sum("passages"), "passage")}` : "";
  }

  #showAnswer() {
    this.part.answer.hidden = !this.text;
    this.part.answer.replaceChildren(make("p", {}, ...linked(this.text, this.citations)));
  }

  #showLookedAt(places) {
    this.part.more.append(
      make("details", {}, make("summary", {}, "What was looked at"), make("ul", {}, ...places.map((where) => make("li", {}, where)))));
  }

  #showSummary(summary, open) {
    if (open) {
      this.part.answer.hidden = true; // it would say the same words once more
      this.summaries.push(summary);
    }
    const citations = summary.citations ?? [];
    const sources = make("ol", { class: "citations", "aria-label": `Sources of the summary of ${summary.topic}` });
    listCitations(sources, citations);
    const details = make("details", {}, make("summary", {}, `Summary of ${summary.topic}`),
      make("div", { class: "answer" }, make("p", {}, ...linked(summary.text, citations))), sources);
    details.open = open;
    this.part.more.append(details);
  }
}

/** Goals as a run left them. @param {{ goals?: string[], failed?: string[] }} run */
function goalsOf({ goals = [], failed = [] }) {
  return new Map([...goals.map((goal) => [goal, "holds"]), ...failed.map((goal) => [goal, "failed"])]);
}
