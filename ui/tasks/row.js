/** One task of the list. */

import { button, copy, make } from "../page/elements.js";
import { place } from "../page/views.js";
import { ago, duration, some } from "../page/wording.js";

const ACTIVE = new Set(["queued", "running", "retrying"]);
const AGAIN = new Set(["dead", "cancelled"]);

export class TaskRow {
  task = /** @type {any} */ ({});
  #nodes = 0;

  /** @param {(method: string, path: string) => void} act */
  constructor(act) {
    const { element, parts } = copy("task");
    this.element = element;
    this.part = parts;
    this.act = act;
  }

  get active() {
    return ACTIVE.has(this.task.status);
  }

  /** @param {any} task as GET /tasks/{id} gives it */
  put(task) {
    if (this.task.updated && this.task.updated > task.updated) return; // an answer that was overtaken
    const before = this.task.status;
    this.task = task;
    this.element.dataset.id = task.id;
    this.element.dataset.status = task.status;
    const { part } = this;
    part.title.textContent = titleOf(task);
    part.status.textContent = task.status;
    part.status.className = `badge ${task.status}`;
    part.facts.textContent = [task.kind, `created ${ago(Date.parse(task.created))}`, took(task), task.attempts > 1 && `attempt ${task.attempts}`]
      .filter(Boolean).join(" · ");
    part.error.textContent = task.error;
    part.error.hidden = !task.error || task.status === "complete";
    if (before !== task.status) this.#buttons();
    this.#progress();
  }

  /** A page came in for it. */
  countNode() {
    this.#nodes++;
    this.#progress();
  }

  #progress() {
    const { task, part } = this;
    const most = task.payload?.max_nodes * Math.max(1, task.payload?.topics?.length ?? 1);
    const pages = Math.max(this.#nodes, task.progress?.pages ?? 0);
    part.bar.hidden = !(task.status === "running" && task.kind === "crawl");
    if (!part.bar.hidden) {
      part.bar.max = most || 1;
      part.bar.value = Math.min(pages, most);
    }
    part.progress.textContent = this.active ? (task.progress?.text ?? (pages ? some(pages, "page") : "")) : ended(task);
    part.progress.hidden = !part.progress.textContent;
  }

  #buttons() {
    const { task } = this;
    const path = `/tasks/${encodeURIComponent(task.id)}`;
    const title = titleOf(task);
    const focused = this.part.actions.contains(document.activeElement);
    this.part.actions.replaceChildren(
      ...[
        this.active && button("Cancel", () => this.act("DELETE", path), { class: "quiet danger", "aria-label": `Cancel ${title}` }),
        AGAIN.has(task.status) && button("Retry", () => this.act("POST", `${path}/retry`), { class: "quiet", "aria-label": `Retry ${title}` }),
        task.started && make("a", { href: place("plan", task.id), "aria-label": `Plan of ${title}` }, "Plan"),
        make("a", { href: place("events", task.id), "aria-label": `Events of ${title}` }, "Events"),
      ].filter(Boolean),
    );
    if (focused) this.part.actions.querySelector("button, a")?.focus();
  }
}

const titleOf = ({ kind, payload, id }) => payload?.topics?.join(", ") || payload?.message || `${kind} ${id.slice(0, 8)}`;

function took({ started, finished }) {
  return started && finished && `took ${duration((Date.parse(finished) - Date.parse(started)) / 1000)}`;
}

function ended({ status, result }) {
  if (status !== "complete" || !result?.report) return "";
  const crawls = result.report.crawls ?? [];
  const pages = crawls.reduce((total, crawl) => total + crawl.titles.length, 0);
  return crawls.length ? `read ${some(pages, "page")}` : "";
}
