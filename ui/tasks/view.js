/** Tasks: the list, how far each is, and what can be done with it. */

import { againMs, get, query, send, unique } from "../net/api.js";
import { listen, told } from "../net/mux.js";
import { announce, by, say } from "../page/elements.js";
import { TaskRow } from "./row.js";

const LOOK_MS = 2_000; // running tasks are asked how far they are
const AGAIN_MS = 5_000; // after a list that did not come
const GATHER_MS = 150; // events that come together cause one question

/** @returns {import("../page/views.js").View} */
export function open() {
  return new TasksView();
}

class TasksView {
  /** @type {Map<string, TaskRow>} */ rows = new Map();
  /** @type {string | null} */ cursor = null;
  /** @type {Set<string>} */ #changed = new Set();
  #gathering = 0;
  #looking = 0;
  #latest = 0;
  #shown = false;
  /** The list is what the server has. */ #known = false;

  constructor() {
    by("crawl-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    by("tasks-status").addEventListener("change", () => this.load());
    by("tasks-more").addEventListener("click", () => this.load(this.cursor));
    by("tasks-dead").addEventListener("click", () => this.retryDead());
    listen("task.", (event) => this.ask(event.task_id));
    listen("node.add", (event) => this.rows.get(event.task_id)?.countNode());
    listen("gap", () => this.#shown && this.load());
  }

  show() {
    this.#shown = true;
    this.load();
    this.#looking ||= setInterval(() => {
      for (const [id, row] of this.rows) if (row.active) this.ask(id);
    }, LOOK_MS);
  }

  hide() {
    this.#shown = false;
    clearInterval(this.#looking);
    this.#looking = 0;
  }

  async load(cursor = null) {
    const own = ++this.#latest;
    const list = by("tasks-list");
    say(by("tasks-note"), this.#known ? "" : "loading …");
    try {
      await told();
      const page = await get(`/tasks${query({ status: by("tasks-status").value, cursor, limit: 50 })}`);
      if (own !== this.#latest) return;
      if (!cursor) {
        this.rows.clear();
        list.replaceChildren();
      }
      for (const task of page.tasks) list.append(this.#row(task).element);
      this.cursor = page.cursor;
      by("tasks-more").hidden = !page.cursor;
      this.#known = true;
      say(by("tasks-note"), "");
    } catch (error) {
      if (own !== this.#latest) return;
      this.#known = false;
      say(by("tasks-note"), error.message, true);
      const ms = againMs(error, AGAIN_MS);
      if (ms !== null) setTimeout(() => own === this.#latest && this.#shown && this.load(cursor), ms);
    }
    this.#tell();
  }

  /** Ask how a task stands, together with others that changed in the same moment. */
  ask(id) {
    if (!this.#shown || !id) return;
    this.#changed.add(id);
    this.#gathering ||= setTimeout(async () => {
      this.#gathering = 0;
      const ids = [...this.#changed];
      this.#changed.clear();
      await Promise.all(ids.slice(0, 50).map((one) => this.#look(one)));
      this.#tell();
    }, GATHER_MS);
  }

  async #look(id) {
    try {
      this.#put(await get(`/tasks/${encodeURIComponent(id)}`));
    } catch {
      // A run of the chat has no task, and one that is gone says so when something is done with it.
    }
  }

  #put(task) {
    const wanted = by("tasks-status").value;
    const fits = !wanted || task.status === wanted;
    const known = this.rows.has(task.id);
    if (!fits && !known) return;
    const row = this.#row(task);
    if (!known) by("tasks-list").prepend(row.element);
  }

  #row(task) {
    let row = this.rows.get(task.id);
    if (!row) this.rows.set(task.id, (row = new TaskRow((method, path) => this.act(method, path))));
    row.put(task);
    return row;
  }

  async act(method, path) {
    try {
      const task = await send(method, path);
      announce(`Task ${task.kind}: ${task.status}`);
      this.#put(task);
    } catch (error) {
      say(by("tasks-note"), error.message, true);
    }
    this.#tell();
  }

  async submit() {
    const problem = by("crawl-problem");
    problem.textContent = "";
    const titles = by("crawl-titles").value.split("\n").map((title) => title.trim()).filter(Boolean);
    const [hops, nodes] = [by("crawl-hops"), by("crawl-nodes")].map((field) => Number(field.value));
    by("crawl-submit").disabled = true;
    try {
      const task = await send("POST", "/tasks", { crawl: titles, hops, max_nodes: nodes }, { "Idempotency-Key": unique() });
      by("crawl-titles").value = "";
      announce(`Queued: ${titles.join(", ")}`);
      this.#put(task);
    } catch (error) {
      problem.textContent = error.message;
    }
    by("crawl-submit").disabled = false;
    this.#tell();
  }

  /** Send every dead task back. */
  async retryDead() {
    by("tasks-dead").disabled = true;
    try {
      const { tasks } = await get("/tasks?status=dead&limit=200");
      for (const task of tasks) await this.act("POST", `/tasks/${encodeURIComponent(task.id)}/retry`);
    } catch (error) {
      say(by("tasks-note"), error.message, true);
    }
    by("tasks-dead").disabled = false;
    this.#tell();
  }

  #tell() {
    by("tasks-empty").hidden = !this.#known || this.rows.size > 0;
    by("tasks-dead").hidden = ![...this.rows.values()].some((row) => row.task.status === "dead");
  }
}
