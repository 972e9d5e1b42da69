/** The figures of GET /metrics/summary, and how they changed since the page was opened. */

import { againMs, get } from "../net/api.js";
import { by, make, say } from "../page/elements.js";
import { clock, count, duration, short } from "../page/wording.js";
import { bar, sparkline } from "./charts.js";
import { History } from "./history.js";

const EVERY_MS = 5_000; // the server reads them as often

/** @returns {import("../page/views.js").View} */
export function open() {
  return new MetricsView();
}

class MetricsView {
  history = new History();
  #timer = 0;
  #reading = false;
  /** When the figures were read that are shown. */
  #asOf = "";

  show() {
    this.read();
    // It goes on while another view is looked at, so that the lines have no holes.
    this.#timer ||= setInterval(() => document.hidden || this.read(), EVERY_MS);
  }

  async read() {
    if (this.#reading) return;
    this.#reading = true;
    try {
      const found = await get("/metrics/summary");
      this.history.add(flat(found));
      if (document.body.dataset.view === "metrics") this.#paint(found);
      this.#asOf = clock(Date.now());
      say(by("metrics-note"), `as of ${this.#asOf}`);
    } catch (error) {
      if (againMs(error, EVERY_MS) === null) this.#stop(); // or it would ask for a key every five seconds
      say(by("metrics-note"), `${error.message}${this.#asOf && ` The figures are as of ${this.#asOf}.`}`, true);
    } finally {
      this.#reading = false;
    }
  }

  #stop() {
    clearInterval(this.#timer);
    this.#timer = 0;
  }

  #paint(found) {
    const figures = flat(found);
    const cards = [
      ["Conversations", "conversations"], ["Graph nodes", "nodes"], ["Graph edges", "edges"], ["New nodes, last hour", "nodes_last_hour"],
      ["Passages", "passages"], ["Dense vectors", "embedded"], ["Tokens read", "input"], ["Tokens written", "output"],
    ];
    by("metrics-cards").replaceChildren(...cards.map(([title, name]) =>
      make("li", { class: "card" }, make("h2", {}, title), make("p", { class: "big" }, short(figures[name])), sparkline(this.history.line(name), title))));
    this.#agents(found.agents);
    this.#tasks(found.tasks);
    this.#streams(found.streams);
    this.#models(found.models, found.tokens.usd);
    this.#cache(found.cache);
  }

  #agents(agents) {
    const most = Math.max(...Object.values(agents).map((one) => one.runs), 1);
    table("metrics-agents", ["Agent", "Runs", "", "Failed", "Mean", "Tokens"], Object.entries(agents).map(([name, one]) =>
      [name, count(one.runs), bar(one.runs, most), count(one.failed), duration(one.mean_s), short(one.tokens)]));
  }

  #tasks(tasks) {
    const rows = Object.entries(tasks ?? {}).map(([name, value]) => [name, typeof value === "number" ? count(value) : sum(value)]);
    table("metrics-tasks", [], rows);
  }

  #streams(streams) {
    const rows = Object.entries(streams).flatMap(([stream, { length, groups }]) => {
      const known = Object.entries(groups);
      if (!known.length) return [[stream, count(length), "–", "–", "–"]];
      return known.map(([group, one], n) => [n ? "" : stream, n ? "" : count(length), group, count(one.pending), count(one.lag)]);
    });
    table("metrics-streams", ["Stream", "Entries", "Group", "Pending", "Behind"], rows);
  }

  #models(models, usd) {
    const rows = models.map((one) => [`${one.provider} ${one.model}`, count(one.calls), short(one.input_tokens), short(one.output_tokens)]);
    table("metrics-models", ["Model", "Calls", "Read", "Written"], rows);
    by("metrics-usd").textContent = `${usd.toFixed(4)} USD spent.`;
  }

  #cache(cache) {
    table("metrics-cache", [], Object.entries(cache).map(([name, value]) => [name.replaceAll("_", " "), count(value)]));
  }
}

const sum = (value) => count(Object.values(value ?? {}).reduce((total, one) => total + Number(one), 0));

function flat({ conversations, tokens, vectors, graph }) {
  return { conversations, ...tokens, ...vectors, ...graph };
}

function table(id, names, rows) {
  const heads = names.map((name) => (name ? make("th", { scope: "col" }, name) : make("td", {})));
  const lines = rows.map(([first, ...others]) =>
    make("tr", {}, first ? make("th", { scope: "row" }, first) : make("td", {}), ...others.map((one) => make("td", { class: typeof one === "string" ? "figure" : "" }, one))));
  by(id).replaceChildren(...(heads.length ? [make("thead", {}, make("tr", {}, ...heads))] : []), make("tbody", {}, ...lines));
  by(id).closest("section").hidden = !rows.length;
}
