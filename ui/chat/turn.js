/** A question, the run that follows from it, and its answer, as they are shown. */

import { copy, make } from "../page/elements.js";
import { duration, some } from "../page/wording.js";
import { place } from "../page/views.js";
import { linked, listCitations } from "./cited.js";

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
    this.started = performance.now();
    this.ended = settled;
    parts.asked.textContent = message;
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

  take_plan({ situation, decision }) {
    const states = new Map(situation.holding.map((goal) => [goal, "holds"]));
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

  take_done({ outcome, report = {}, reply, answer, task_id: task }) {
    if (!this.text && outcome?.status !== "failed") this.said.set("", answer ?? "");
    this.#showAnswer();
    if (outcome?.status === "failed") this.fail(outcome.reason);
    for (const crawl of report.crawls ?? [])
      this.counts.set(crawl.topic ?? crawl.title, { pages: crawl.titles.length, passages: crawl.passages });
    this.#showCounts();
    if (reply?.abstained && reply.looked_at?.length) this.#showLookedAt(reply.looked_at);
    for (const summary of report.summaries ?? []) this.#showSummary(summary, !reply);
    for (const notice of outcome?.notices ?? []) this.part.more.append(make("p", { class: "soft" }, notice));
    if (task && outcome) this.part.plan.replaceChildren(make("a", { href: place("plan", task) }, "Why these steps"));
    const took = duration((performance.now() - this.started) / 1000);
    this.end([outcome?.status ?? "ended", this.resumed ? "" : took, this.usage].filter(Boolean).join(" · "));
  }

  /** What a stored conversation has of the answer. */
  recall(content, metadata) {
    this.said.set("", content);
    this.citations = metadata?.citations ?? [];
    this.#showAnswer();
    listCitations(this.part.citations, this.citations);
    if (metadata?.task_id) this.part.plan.replaceChildren(make("a", { href: place("plan", metadata.task_id) }, "Why these steps"));
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

  #tools() {
    this.part.tools.hidden = false;
    this.part.copy.hidden = !this.text && !this.element.querySelector(".answer:not([hidden])");
  }

  async #copy() {
    const sources = this.citations.map((cited) => `[${cited.number}] ${cited.title}, revision ${cited.revision}: ${cited.url}`);
    const copied = this.part.copy;
    try {
      await navigator.clipboard.writeText([this.text, ...sources].join("\n"));
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
    if (open) this.part.answer.hidden = true; // it would say the same words once more
    const citations = summary.citations ?? [];
    const sources = make("ol", { class: "citations", "aria-label": `Sources of the summary of ${summary.topic}` });
    listCitations(sources, citations);
    const details = make("details", {}, make("summary", {}, `Summary of ${summary.topic}`),
      make("div", { class: "answer" }, make("p", {}, ...linked(summary.text, citations))), sources);
    details.open = open;
    this.part.more.append(details);
  }
}
