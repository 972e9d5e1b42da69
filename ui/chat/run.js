/** A run of POST /masterchat/chat, followed to its end through broken connections, reloads of the page and in other tabs. */

import { request, unique } from "../net/api.js";
import { follow } from "../net/follow.js";

const KEPT = "lumina.run";
const tabs = new BroadcastChannel("lumina.runs");

/** @typedef {{ message: string, mode: string, conversation: string | null, task: string | null, key: string, watched: boolean }} Kept watched: it was begun in another tab */

/** The run that went on when the page was left. @returns {Kept | null} */
export function interrupted() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  } catch {
    return null;
  }
}

/** It is not followed any more. */
export const forget = () => sessionStorage.removeItem(KEPT);

/** Hear of runs that other tabs have begun. @param {(asked: Kept) => void} take */
export const hear = (take) => tabs.addEventListener("message", ({ data }) => take(data));

export class Run {
  #leaving = new AbortController();
  #stopped = false;

  /** @param {Omit<Kept, "task" | "key" | "watched"> & Partial<Kept>} asked @param {(kind: string, data: any) => void} take */
  constructor(asked, take) {
    /** @type {Kept} */
    this.asked = { task: null, key: unique(), watched: false, ...asked };
    this.take = take;
  }

  /** Until it has ended. @throws {import("../net/api.js").Refused} */
  async follow() {
    this.#keep();
    const { message, mode, conversation, key } = this.asked;
    const body = JSON.stringify({ message, mode, conversation_id: conversation, stream: true });
    const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
    try {
      await follow({
        name: "chat",
        // With the key the same message is the same run, so it can be sent again until its id is known.
        ask: () => (this.asked.task ? [`/masterchat/chat/${this.asked.task}/events`] : ["/masterchat/chat", { method: "POST", body, headers }]),
        begun: (response) => {
          this.#named(response.headers);
          this.take("begun", { conversation_id: this.asked.conversation });
        },
        take: (kind, data) => {
          this.take(kind, data);
          return kind === "done" || kind === "error";
        },
        signal: this.#leaving.signal,
        eager: !this.asked.task,
      });
    } finally {
      if (interrupted()?.key === this.asked.key) forget();
    }
  }

  /** Follow it no more; who opens its conversation does again. */
  leave() {
    this.#leaving.abort();
  }

  /** End it for good; its last event says so. */
  async stop() {
    this.#stopped = true;
    if (!this.asked.task) this.#leaving.abort(); // it is not known to have begun, and is stopped when nobody follows
    else await request(`/masterchat/chat/${this.asked.task}`, { method: "DELETE" });
  }

  get stopped() {
    return this.#stopped;
  }

  #named(headers) {
    const run = /\/chat\/([0-9a-f-]{36})\/events/.exec(headers.get("Content-Location") ?? "");
    if (!run) return;
    const conversation = /<\/conversations\/([^>]+)>; rel="collection"/.exec(headers.get("Link") ?? "");
    const told = this.asked.task !== null;
    this.asked.task = run[1];
    this.asked.conversation = conversation?.[1] ?? this.asked.conversation; // the message is not sent any more
    this.#keep();
    if (!told) tabs.postMessage(this.asked);
    if (this.#stopped) this.stop();
  }

  #keep() {
    sessionStorage.setItem(KEPT, JSON.stringify(this.asked));
  }
}
