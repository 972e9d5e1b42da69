/** The console: one conversation with POST /masterchat/chat, shown as it happens. Nothing else is asked for. */

const KEY = "lumina.key";
const MARKS = { holds: "●", running: "◐", planned: "○", failed: "✗" };

const by = (id) => document.getElementById(id);
const form = by("composer");
const box = by("message");
const mode = by("mode");

let conversation = null;
let running = null; // the AbortController of the run that goes on
let turns = 0;

/** An element with attributes and children; text is never taken for markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Server-sent events of a response (WHATWG HTML, 9.2.6) whose data is JSON, as [kind, data]. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event) yield event;
      }
    }
  } finally {
    await reader.cancel().catch(() => {}); // a stream that was aborted cannot be cancelled again
  }
}

function parse(block) {
  let kind = "message";
  const data = [];
  for (const line of block.split("\n")) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "event") kind = value;
    else if (field === "data") data.push(value);
  }
  return data.length ? [kind, JSON.parse(data.join("\n"))] : null;
}

/** A question, the run that follows from it, and its answer. */
class Turn {
  constructor(message) {
    const article = by("turn").content.cloneNode(true).firstElementChild;
    this.id = `turn-${++turns}`;
    this.article = article;
    this.part = Object.fromEntries([...article.querySelectorAll("[data-part]")].map((e) => [e.dataset.part, e]));
    this.goals = new Map();
    this.counts = new Map();
    this.text = "";
    this.citations = [];
    this.started = performance.now();
    this.part.asked.textContent = message;
    this.part.now.textContent = "sending …";
    article.setAttribute("aria-busy", "true");
    by("log").append(article);
  }

  take(kind, data) {
    this[`take_${kind}`]?.(data);
    follow();
  }

  take_plan({ situation, decision }) {
    const states = new Map(situation.holding.map((goal) => [goal, "holds"]));
    for (const step of decision.plan) states.set(step.goal, "planned");
    for (const step of decision.run) states.set(step.goal, "running");
    for (const [goal, state] of this.goals) if (state !== "failed" && !states.has(goal)) this.goals.delete(goal);
    for (const [goal, state] of states) this.goals.set(goal, state); // each stays where the first plan put it
    this.part.now.textContent = decision.why;
    this.showGoals();
  }

  take_agent({ agent, state, goal, text }) {
    if (state === "failed") this.goals.set(goal, "failed");
    if (text) this.part.now.textContent = `${agent}: ${text}`;
    this.showGoals();
  }

  take_progress(data) {
    this.part.now.textContent = `${data.agent}: ${data.text}`;
    if ("pages" in data) this.counts.set(data.topic, { pages: data.pages, passages: data.passages });
    this.showCounts();
  }

  take_token({ text }) {
    this.text += text;
    this.showAnswer();
  }

  take_citation(citation) {
    this.citations.push(citation);
    this.showAnswer();
    this.showCitations(this.part.citations, this.citations, this.id);
  }

  take_usage({ input_tokens, output_tokens, usd }) {
    this.usage = `${(input_tokens ?? 0) + (output_tokens ?? 0)} tokens` + (usd ? `, ${usd.toFixed(4)} USD` : "");
  }

  take_error({ title, detail }) {
    this.fail(detail || title);
  }

  take_done(data) {
    conversation = data.conversation_id ?? conversation;
    const { outcome, report = {}, reply } = data;
    if (!this.text) this.text = outcome?.status === "failed" ? "" : (data.answer ?? "");
    this.showAnswer();
    if (outcome?.status === "failed") this.fail(outcome.reason);
    for (const crawl of report.crawls ?? [])
      this.counts.set(crawl.topic ?? crawl.title, { pages: crawl.titles.length, passages: crawl.passages });
    this.showCounts();
    const seconds = ((performance.now() - this.started) / 1000).toFixed(1);
    this.part.now.textContent = [outcome?.status ?? "ended", `${seconds} s`, this.usage].filter(Boolean).join(" · ");
    if (reply?.abstained && reply.looked_at?.length)
      this.part.more.append(
        make("details", {}, make("summary", {}, "What was looked at"),
          make("ul", {}, ...reply.looked_at.map((where) => make("li", {}, where)))));
    for (const [number, summary] of (report.summaries ?? []).entries())
      this.showSummary(summary, `${this.id}-s${number}`, !reply);
  }

  showGoals() {
    this.part.goals.replaceChildren(
      ...[...this.goals].map(([goal, state]) =>
        make("li", { class: state }, make("b", { "aria-hidden": "true" }, MARKS[state]), `${goal} `,
          make("small", {}, state))));
  }

  showCounts() {
    const sum = (name) => [...this.counts.values()].reduce((total, count) => total + (count[name] ?? 0), 0);
    this.part.counts.textContent = this.counts.size ? `${sum("pages")} pages, ${sum("passages")} passages` : "";
  }

  showAnswer() {
    this.part.answer.hidden = !this.text;
    this.part.answer.replaceChildren(make("p", {}, ...linked(this.text, this.citations, this.id)));
  }

  showSummary(summary, id, open) {
    if (open) this.part.answer.hidden = true; // it would say the same words once more
    const sources = make("ol", { class: "citations", "aria-label": `Sources of the summary of ${summary.topic}` });
    this.showCitations(sources, summary.citations ?? [], id);
    const details = make("details", {}, make("summary", {}, `Summary of ${summary.topic}`),
      make("div", { class: "answer" }, make("p", {}, ...linked(summary.text, summary.citations ?? [], id))), sources);
    details.open = open;
    this.part.more.append(details);
  }

  showCitations(list, citations, id) {
    list.hidden = !citations.length;
    list.replaceChildren(...citations.map((cited) => {
      const where = [cited.title, ...(cited.section ?? [])].join(" › ");
      return make("li", { id: `${id}-${cited.number}`, tabindex: "-1" },
        make("span", { class: "number" }, `[${cited.number}]`),
        make("div", {}, make("strong", {}, where), " ",
          make("span", { class: "revision" }, `revision ${cited.revision}`),
          cited.quote ? make("q", {}, cited.quote) : "", address(cited.url)));
    }));
  }

  fail(words) {
    this.part.problem.textContent = words;
    this.part.problem.hidden = false;
  }

  /** Whatever was running runs no more. */
  end(words) {
    for (const [goal, state] of this.goals) if (state === "running") this.goals.set(goal, "planned");
    if (words) this.part.now.textContent = words;
    this.showGoals();
    this.article.setAttribute("aria-busy", "false");
  }
}

/** Text whose [1] lead to the sources that are there. */
function linked(text, citations, id) {
  const numbers = new Set(citations.map((cited) => String(cited.number)));
  return text.split(/(\[\d+\])/).map((piece) => {
    const number = piece.slice(1, -1);
    if (!/^\[\d+\]$/.test(piece) || !numbers.has(number)) return piece;
    return make("a", { class: "cite", href: `#${id}-${number}`, "aria-label": `source ${number}` }, piece);
  });
}

/** A link for the web; the address of a page in a file is text, for no browser opens it. */
function address(url) {
  if (!/^https?:/.test(url)) return make("span", { class: "address" }, url);
  return make("a", { class: "address", href: url, rel: "noopener noreferrer", target: "_blank" }, url);
}

/** Keep the end in view, unless the reader has scrolled away from it. */
function follow() {
  const page = document.scrollingElement;
  if (page.scrollHeight - page.scrollTop - page.clientHeight < 240) page.scrollTop = page.scrollHeight;
}

/** Ask for a key; false when there is none to be had. */
function askForKey(why) {
  const dialog = by("key-dialog");
  by("key-why").textContent = why;
  by("key").value = "";
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((settle) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "use" && by("key").value.trim();
      if (given) sessionStorage.setItem(KEY, given);
      settle(Boolean(given));
    }, { once: true });
  });
}

async function refusal(response) {
  const problem = await response.json().catch(() => ({}));
  return problem.detail || `the server answered ${response.status}`;
}

/** The response to a message, with a key where one is wanted. */
async function post(message, signal) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const response = await fetch("/masterchat/chat", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) },
      body: JSON.stringify({ message, mode: mode.value, conversation_id: conversation, stream: true }),
      signal,
    });
    if (response.ok) return response;
    const why = await refusal(response);
    if (response.status === 401) sessionStorage.removeItem(KEY);
    if (response.status !== 401 || !(await askForKey(`${why.split(";")[0]}.`))) throw new Error(why);
  }
}

async function send(message) {
  const turn = new Turn(message);
  const own = (running = new AbortController());
  busy(true);
  follow();
  try {
    let ended = false;
    for await (const [kind, data] of events(await post(message, own.signal))) {
      turn.take(kind, data);
      ended ||= kind === "done" || kind === "error";
    }
    if (!ended) turn.fail("The connection ended before the answer did.");
    turn.end();
  } catch (error) {
    if (!own.signal.aborted) turn.fail(error.message);
    turn.end(own.signal.aborted ? "stopped" : "not answered");
  } finally {
    running = null;
    busy(false);
    follow();
  }
}

function busy(is) {
  by("send").disabled = by("fresh").disabled = is;
  by("stop").hidden = !is;
  by("welcome").hidden = true;
  if (!is) box.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const message = box.value.trim();
  if (!message || running) return;
  box.value = "";
  send(message);
});
box.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !by("key-dialog").open) running?.abort();
});
by("key-cancel").addEventListener("click", () => by("key-dialog").close("cancel"));
by("stop").addEventListener("click", () => running?.abort());
by("fresh").addEventListener("click", () => {
  conversation = null;
  by("log").replaceChildren();
  by("welcome").hidden = false;
  box.focus();
});
by("examples").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || running) return;
  mode.value = button.dataset.mode;
  send(button.textContent);
});
