/** The chat: conversations, turns, and the box to write in. */

import { Refused, againMs, get } from "../net/api.js";
import { announce, by } from "../page/elements.js";
import { shortcut } from "../page/shortcuts.js";
import { go, rename } from "../page/views.js";
import { openConversations } from "./conversations.js";
import { Run, forget, hear, interrupted } from "./run.js";
import { Turn } from "./turn.js";

const AGAIN_MS = 5_000;

/** @returns {import("../page/views.js").View} */
export function open() {
  const chat = new Chat();
  return {
    show: (rest) => chat.show(rest),
    hide: () => chat.closeSide(),
  };
}

class Chat {
  /** @type {string | null} */ conversation = null;
  /** @type {Run | null} */ run = null;
  before = null;
  begun = false;
  /** The conversation did not come. */ unread = false;

  constructor() {
    hear((asked) => this.heard(asked));
    this.list = openConversations({ dropped: (id) => id === this.conversation && this.fresh() });
    const box = by("message");
    by("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      const message = box.value.trim();
      if (!message || this.run) return;
      box.value = "";
      this.fit();
      this.ask({ message, mode: by("mode").value, conversation: this.conversation });
    });
    box.addEventListener("input", () => this.fit());
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      by("composer").requestSubmit();
    });
    by("stop").addEventListener("click", () => this.stop());
    by("fresh").addEventListener("click", () => this.fresh());
    by("side-open").addEventListener("click", () => this.side(by("side").dataset.open === undefined));
    by("earlier").addEventListener("click", () => this.load(this.before));
    by("examples").addEventListener("click", (event) => {
      const example = event.target.closest("button");
      if (!example || this.run) return;
      this.ask({ message: example.textContent, mode: example.dataset.mode, conversation: null });
    });
    shortcut("n", "New conversation", { action: () => (go("chat"), this.fresh()) });
    shortcut("Escape", "Stop the answer", { view: "chat", action: () => this.stop() });
    shortcut("Enter", "Send, in the message box; Shift+Enter begins a line", { view: "chat" });
  }

  async show(id) {
    this.list.load();
    if (!this.begun) {
      this.begun = true;
      const left = interrupted();
      if (left && (!id || id === left.conversation)) {
        if (left.conversation) await this.showStored(left.conversation, left);
        else this.ask(left, true);
        return;
      }
    }
    if (id && id !== this.conversation) this.leave();
    if (id && (id !== this.conversation || this.unread) && !this.run) await this.showStored(id);
    else if (id && id !== this.conversation) this.stay();
    else if (!id && this.conversation) rename("chat", this.conversation);
    this.welcome();
    if (matchMedia("(min-width: 60rem)").matches) by("message").focus({ preventScroll: true });
  }

  /** A run goes on in another conversation than was asked for. */
  stay() {
    rename("chat", this.conversation ?? "");
    by("chat-note").textContent = "An answer is on its way here. Stop it to open another conversation.";
    this.closeSide();
  }

  /** Another tab has asked something. @param {import("./run.js").Kept} asked */
  heard(asked) {
    if (asked.conversation !== this.conversation || this.run || by("log").ariaBusy === "true") return;
    this.ask({ ...asked, watched: true }, true);
  }

  /** Let a run go on that another tab has begun; one's own would be stopped. */
  leave() {
    if (!this.run?.asked.watched) return;
    this.run.leave();
    this.run = null;
    this.busy(false);
  }

  /** A conversation, and what goes on in it. @param {import("./run.js").Kept | null} left see `load` */
  async showStored(id, left = null) {
    by("log").replaceChildren();
    this.conversation = id;
    this.unread = false;
    this.closeSide();
    const going = await this.load(null, left);
    if (this.run) return; // somebody asked meanwhile
    if (going) this.ask(going, true);
    else forget();
  }

  /**
   * A page of stored messages, the latest or those before a number.
   * @param {number | null} before @param {import("./run.js").Kept | null} left a run that went on when the page was left
   * @returns {Promise<any>} the run that goes on, that one or another tab's, as `ask` takes it: its question is left out
   */
  async load(before, left = null) {
    const id = this.conversation;
    const log = by("log");
    log.setAttribute("aria-busy", "true");
    try {
      const page = await get(`/conversations/${encodeURIComponent(id)}?limit=100${before ? `&before=${before}` : ""}`);
      if (id !== this.conversation) return null;
      by("chat-note").textContent = "";
      const { messages } = page;
      const last = messages.at(-1);
      if (left?.task && messages.some(({ role, metadata }) => role !== "user" && metadata?.task_id === left.task)) left = null;
      if (!left && !before && last?.role === "user" && last.metadata?.task_id)
        left = { message: last.content, mode: by("mode").value, conversation: id, task: last.metadata.task_id, watched: true };
      if (left && last?.role === "user" && last.content === left.message) messages.pop();
      const height = document.scrollingElement.scrollHeight;
      log.prepend(...this.turns(messages));
      this.before = page.before;
      const seen = document.scrollingElement;
      seen.scrollTop = before ? seen.scrollTop + seen.scrollHeight - height : seen.scrollHeight;
      return left;
    } catch (error) {
      if (id !== this.conversation) return null;
      const gone = error instanceof Refused && error.status === 404;
      if (gone) this.fresh();
      else if (!before) this.again(id, againMs(error, AGAIN_MS));
      by("chat-note").textContent = gone ? "That conversation is not there any more." : error.message;
      return left;
    } finally {
      log.removeAttribute("aria-busy");
      by("earlier").hidden = !this.before;
      this.list.select(this.conversation ?? "");
      this.welcome();
    }
  }

  /** Read a conversation again that did not come, unless somebody has gone on meanwhile. */
  again(id, ms) {
    this.unread = true;
    if (ms !== null) setTimeout(() => this.unread && id === this.conversation && !this.run && this.showStored(id), ms);
  }

  turns(messages) {
    const turns = [];
    let asked = 0;
    for (const { role, content, metadata, ts } of messages) {
      if (role === "user" || !turns.length) turns.push(this.turn(role === "user" ? content : "…", true));
      if (role === "user") asked = ts;
      else turns.at(-1).recall(content, metadata, asked ? (ts - asked) / 1000 : null);
    }
    return turns.map((turn) => {
      if (!turn.recalled) turn.unanswered();
      return turn.element;
    });
  }

  turn(message, settled = false, mode = "auto") {
    const turn = new Turn(message, {
      settled,
      retry: () => !this.run && this.ask({ message, mode: settled ? by("mode").value : mode, conversation: this.conversation }),
    });
    return turn;
  }

  async ask(asked, resumed = false) {
    by("chat-note").textContent = "";
    const turn = this.turn(asked.message, false, asked.mode);
    turn.resumed = resumed;
    if (asked.watched) turn.part.now.textContent = "asked in another tab …";
    by("log").append(turn.element);
    const run = (this.run = new Run(asked, (kind, data) => this.take(turn, kind, data)));
    this.busy(true);
    turn.element.scrollIntoView({ block: "nearest" });
    try {
      await run.follow();
      if (!turn.ended && run.stopped) turn.end("stopped");
      else if (!turn.ended) turn.end("its events are no longer kept; the conversation has the answer");
    } catch (error) {
      if (resumed && error.status === 404) turn.unanswered();
      else {
        turn.fail(error.message);
        turn.end("not answered");
      }
      if (error.retryAfterS) turn.rest(error.retryAfterS);
    } finally {
      if (this.run === run) this.settled(turn); // else it was left
    }
  }

  settled(turn) {
    this.run = null;
    this.busy(false);
    announce(turn.text ? `Answer: ${turn.text}` : "No answer.");
    this.list.load();
  }

  take(turn, kind, data) {
    turn.take(kind, data);
    if (kind === "begun" && data.conversation_id && data.conversation_id !== this.conversation) {
      this.conversation = data.conversation_id;
      if (document.body.dataset.view === "chat") rename("chat", data.conversation_id);
      this.list.select(data.conversation_id);
    }
    if (kind === "plan" && data.round === 1) this.list.load(); // the question is kept by now
    follow();
  }

  async stop() {
    if (!this.run || this.run.stopped) return;
    try {
      await this.run.stop();
    } catch (error) {
      if (error.status !== 404) by("chat-note").textContent = error.message; // 404: it has ended meanwhile
    }
  }

  fresh() {
    this.leave();
    if (this.run) return;
    this.conversation = this.before = null;
    this.unread = false;
    by("log").replaceChildren();
    by("earlier").hidden = true;
    by("chat-note").textContent = "";
    this.list.select("");
    this.closeSide();
    rename("chat");
    this.welcome();
    by("message").focus();
  }

  busy(is) {
    by("send").disabled = is;
    by("fresh").disabled = is && !this.run?.asked.watched;
    by("send").hidden = is;
    by("stop").hidden = !is;
    this.welcome();
    if (!is && document.body.dataset.view === "chat" && !document.querySelector("dialog[open]")) by("message").focus({ preventScroll: true });
  }

  welcome() {
    by("welcome").hidden = by("log").childElementCount > 0 || by("log").ariaBusy === "true" || this.unread;
  }

  fit() {
    const box = by("message");
    box.style.height = "auto";
    box.style.height = `${Math.min(box.scrollHeight + 2, innerHeight * 0.4)}px`;
  }

  side(open) {
    if (open) by("side").dataset.open = "";
    else delete by("side").dataset.open;
    by("side-open").setAttribute("aria-expanded", String(open));
  }

  closeSide() {
    this.side(false);
  }
}

/** Keep the end in view, unless the reader has scrolled away from it. */
function follow() {
  const page = document.scrollingElement;
  if (page.scrollHeight - page.scrollTop - page.clientHeight < 240) page.scrollTop = page.scrollHeight;
}
