/** The list of conversations. */

import { againMs, get, query, send } from "../net/api.js";
import { button, by, make, say } from "../page/elements.js";
import { place } from "../page/views.js";
import { ago, some } from "../page/wording.js";

const AGAIN_MS = 5_000;

/** @param {{ dropped: (id: string) => void }} told */
export function openConversations(told) {
  const list = by("conversations");
  const more = by("conversations-more");
  const note = by("conversations-note");
  let current = "";
  let next = null;
  let latest = 0;

  async function load(after = null) {
    const own = ++latest;
    if (!list.childElementCount && !note.textContent) say(note, "loading …");
    try {
      const page = await get(`/conversations${query({ after, limit: 30 })}`);
      if (own !== latest) return;
      const items = page.conversations.map(item);
      if (after) list.append(...items);
      else list.replaceChildren(...items);
      next = page.next;
      more.hidden = !next;
      say(note, list.childElementCount ? "" : "None yet. What you ask is kept here.");
    } catch (error) {
      if (own !== latest) return;
      say(note, error.message, true);
      const ms = againMs(error, AGAIN_MS);
      if (ms !== null) setTimeout(() => own === latest && load(after), ms);
    }
    mark();
  }

  function item(one) {
    const title = one.title || "Untitled";
    const remove = button("✕", () => drop(one, remove), { class: "quiet icon", "aria-label": `Delete «${title}»`, title: "Delete" });
    remove.addEventListener("blur", () => (remove.textContent = "✕"));
    const link = make("a", { href: place("chat", one.id) }, make("span", { class: "title" }, title),
      make("small", {}, `${ago(one.updated)} · ${some(one.turns, "message")}`));
    return make("li", { "data-id": one.id }, link, remove);
  }

  async function drop(one, remove) {
    if (remove.textContent === "✕") {
      remove.textContent = "Sure?"; // a second click deletes
      return;
    }
    try {
      await send("DELETE", `/conversations/${one.id}`);
    } catch (error) {
      if (error.status !== 404) {
        say(note, error.message, true);
        return;
      }
    }
    told.dropped(one.id);
    await load();
  }

  function mark() {
    for (const one of list.children) {
      const link = one.querySelector("a");
      if (one.dataset.id === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  more.addEventListener("click", () => load(next));
  return {
    load: () => load(),
    /** @param {string} id */
    select(id) {
      current = id;
      mark();
    },
  };
}
