/** Single keys that do things, unless somebody types or has switched them off (WCAG 2.1.4). */

import { by, make } from "./elements.js";

const KEPT = "lumina.shortcuts";
/** @type {{ key: string, what: string, view?: string, action?: () => void, always?: boolean }[]} */
const known = [];

const on = () => localStorage.getItem(KEPT) !== "off";
const typing = (target) => target instanceof HTMLElement && target.closest("input, textarea, select, [contenteditable]");

/**
 * Add a shortcut; one of a view works while the view is open.
 * @param {string} key as KeyboardEvent.key has it
 * @param {string} what it does, for the overlay
 * @param {{ view?: string, action?: () => void }} [options] without an action it is only listed
 */
export function shortcut(key, what, options = {}) {
  known.push({ key, what, ...options });
}

export function installShortcuts() {
  const dialog = by("help");
  const switched = by("shortcuts-on");
  switched.checked = on();
  switched.addEventListener("change", () => localStorage.setItem(KEPT, switched.checked ? "on" : "off"));
  by("help-open").addEventListener("click", () => open(dialog));
  shortcut("?", "Show this list", { action: () => open(dialog) });
  document.addEventListener("keydown", (event) => {
    const modified = event.ctrlKey || event.metaKey || event.altKey;
    if (event.defaultPrevented || modified || event.isComposing || document.querySelector("dialog[open]")) return;
    if (event.key !== "Escape" && (!on() || typing(event.target))) return;
    const found = known.find((one) => one.key === event.key && one.action && (!one.view || one.view === document.body.dataset.view));
    if (!found?.action) return;
    event.preventDefault();
    found.action();
  });
}

function open(dialog) {
  by("help-list").replaceChildren(
    ...known.flatMap(({ key, what, view }) => [
      make("dt", {}, make("kbd", {}, key)),
      make("dd", {}, what, view && make("small", {}, ` in ${view}`)),
    ]),
  );
  dialog.showModal();
}
