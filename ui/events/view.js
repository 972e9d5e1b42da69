/** The tail of the streams: every event as it comes, filtered by the server, held on to while paused. */

import { query } from "../net/api.js";
import { follow } from "../net/follow.js";
import { by, make } from "../page/elements.js";
import { shortcut } from "../page/shortcuts.js";
import { clock, some } from "../page/wording.js";

const KEPT = 400; // rows of the table
const BACK_MS = 10 * 60 * 1000;
const SHOWN_CHARS = 160;

/** @returns {import("../page/views.js").View} */
export function open() {
  return new EventsView();
}

class EventsView {
  paused = false;
  /** @type {any[]} */ waiting = [];
  /** Where to go on, by what is followed. @type {string | null} */ lastId = null;
  /** @type {AbortController | null} */ following = null;
  #drawing = 0;
  #heard = 0;
  #shown = false;
  #cleared = false;
  /** All that had happened before is shown. */ #caughtUp = false;

  constructor() {
    by("events-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.restart();
    });
    by("events-form").addEventListener("change", () => this.restart());
    by("events-pause").addEventListener("click", () => this.pause());
    by("events-clear").addEventListener("click", () => this.clear());
    by("events-list").addEventListener("click", ({ target }) => target.closest("tr[data-id]") && this.toggle(target.closest("tr[data-id]")));
    shortcut("p", "Pause or go on", { view: "events", action: () => this.pause() });
  }

  show(task) {
    this.#shown = true;
    if (task && by("events-task").value !== task) {
      by("events-task").value = task;
      this.restart();
    } else if (!this.following && !this.paused) this.follow();
  }

  /** Nothing is missed: it goes on after the last id when it is looked at again. */
  hide() {
    this.#shown = false;
    this.following?.abort();
    this.following = null;
  }

  restart() {
    this.following?.abort();
    this.following = null;
    this.lastId = null;
    this.clear();
    this.#cleared = false;
    if (this.paused) this.pause();
    else if (this.#shown) this.follow();
  }

  pause() {
    this.paused = !this.paused;
    by("events-pause").textContent = this.paused ? "Go on" : "Pause";
    by("events-pause").setAttribute("aria-pressed", String(this.paused));
    if (this.paused) {
      this.following?.abort();
      this.following = null;
    } else if (this.#shown) this.follow();
    this.#tell();
  }

  async follow() {
    const own = (this.following = new AbortController());
    const streams = [...document.querySelectorAll("#events-streams input:checked")].map((one) => /** @type {any} */ (one).value);
    const note = by("events-note");
    if (!streams.length) {
      note.textContent = "Choose a stream.";
      return;
    }
    const task = by("events-task").value.trim();
    const after = `${task ? 0 : Date.now() - BACK_MS}${task ? "" : "-0"}`;
    const path = `/events/stream${query({ streams: streams.join(","), types: by("events-types").value.trim(), task_id: task, after, enrich: 1 })}`;
    note.textContent = "";
    this.#caughtUp = false;
    this.#tell();
    const guessed = this.lastId === null; // where to begin is a time then, and an empty stream has none so late
    let connections = 0;
    try {
      await follow({
        name: "tail",
        ask: () => [path],
        signal: own.signal,
        lastId: this.lastId,
        begun: () => {
          connections++;
          note.textContent = "";
        },
        placed: (all) => {
          if (this.#caughtUp || !all) return;
          this.#caughtUp = true;
          this.#tell();
        },
        troubled: (error) => {
          if (own === this.following) note.textContent = error.message;
        },
        take: (kind, data, id) => {
          if (own !== this.following) return;
          if (kind === "gap" && guessed && connections === 1) return;
          if (kind === "gap") this.#add({ type: "gap", stream: data.stream, ts: Date.now(), data });
          else if (data.type) this.#add(data);
          this.lastId = id ?? this.lastId;
        },
      });
    } catch (error) {
      if (own !== this.following) return;
      note.textContent = error.message;
      this.following = null;
    }
  }

  #add(event) {
    this.#heard++;
    this.waiting.push(event);
    if (this.waiting.length > KEPT) this.waiting.shift();
    this.#drawing ||= requestAnimationFrame(() => {
      this.#drawing = 0;
      const list = by("events-list");
      list.prepend(...this.waiting.reverse().map(row));
      this.waiting = [];
      while (list.children.length > KEPT) list.lastElementChild.remove();
      this.#tell();
    });
  }

  clear() {
    this.#cleared ||= this.#heard > 0;
    this.waiting = [];
    this.#heard = 0;
    by("events-list").replaceChildren();
    this.#tell();
  }

  #tell() {
    by("events-count").textContent = `${some(this.#heard, "event")}${this.paused ? ", paused" : ""}`;
    by("events-empty").textContent = this.#nothing();
    by("events-empty").hidden = by("events-list").childElementCount > 0;
    by("events-list").parentElement.hidden = !by("events-empty").hidden;
  }

  /** Why the table is empty. */
  #nothing() {
    if (!this.#caughtUp && !this.paused) return "loading …";
    const coming = this.paused ? "" : " Events show up here as they come.";
    if (this.#cleared) return `Cleared.${coming}`;
    if (by("events-task").value.trim()) return `Nothing is kept of this task.${coming}`;
    return `Nothing ${by("events-types").value.trim() ? "of these types " : ""}in the last ten minutes.${coming}`;
  }

  toggle(line) {
    const open = line.querySelector("button");
    const shown = open.getAttribute("aria-expanded") !== "true";
    open.setAttribute("aria-expanded", String(shown));
    line.querySelector("pre").hidden = !shown;
    line.querySelector(".brief").hidden = shown;
  }
}

function row(event) {
  const { owner: _, ...said } = event.data; // always one's own
  const text = JSON.stringify(said);
  const more = make("button", { type: "button", class: "plain", "aria-expanded": "false", "aria-label": `All of ${event.type} at ${clock(event.ts)}` }, event.type);
  return make("tr", { "data-id": event.id ?? "gap", class: event.type.startsWith("error") || /\.(dead|fail)$/.test(event.type) ? "bad" : "" },
    make("td", { class: "figure" }, clock(event.ts)),
    make("td", {}, more),
    make("td", { class: "soft" }, [event.stream, event.agent].filter(Boolean).join(" · ")),
    make("td", { class: "data" }, make("span", { class: "brief" }, text.length > SHOWN_CHARS ? `${text.slice(0, SHOWN_CHARS)}…` : text),
      make("pre", { hidden: true, tabindex: "0" }, JSON.stringify(event, null, 2))));
}
