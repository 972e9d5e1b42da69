/** Which view is shown: #/chat/…, #/plan/…. A view is opened when it is first looked at; the others' modules follow. */

import { connected, forget, lost } from "../net/connection.js";
import { by } from "./elements.js";

const AGAIN_MS = 1_000;

/** @typedef {{ show?: (rest: string) => void, hide?: () => void }} View */

/** @type {Record<string, () => Promise<{ open: () => View }>>} */
const MODULES = {
  chat: () => import("../chat/view.js"),
  plan: () => import("../plan/view.js"),
  graph: () => import("../graph/view.js"),
  tasks: () => import("../tasks/view.js"),
  events: () => import("../events/view.js"),
  metrics: () => import("../metrics/view.js"),
};
export const NAMES = Object.keys(MODULES);

/** @type {Map<string, View>} */
const opened = new Map();
let shown = "";
let turn = 0;
let settled = Promise.resolve();

/** The address of a view. @param {string} view @param {string} [rest] */
export const place = (view, rest = "") => `#/${view}${rest ? `/${encodeURIComponent(rest)}` : ""}`;

/** Go to a view. @param {string} view @param {string} [rest] */
export function go(view, rest) {
  location.hash = place(view, rest);
}

/** Let the address name what is shown already, without a step in the history. */
export function rename(view, rest) {
  history.replaceState(null, "", place(view, rest));
}

/** When what the address names is there. */
export const ready = () => settled;

export function installViews() {
  addEventListener("hashchange", () => (settled = follow()));
  settled = follow();
}

async function follow() {
  const [, name = "", rest = ""] = /^#\/(\w+)(?:\/(.*))?$/.exec(location.hash) ?? [];
  const view = NAMES.includes(name) ? name : "chat";
  const own = ++turn;
  for (const one of NAMES) by(one).hidden = one !== view;
  by(view).inert = !opened.has(view); // what is typed or pressed before its module is there would be lost
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === place(view)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.body.dataset.view = view;
  document.title = `${view[0].toUpperCase()}${view.slice(1)} · Lumina`;
  if (shown && shown !== view) opened.get(shown)?.hide?.();
  shown = view;
  if (!opened.has(view)) {
    const module = await load(view, own);
    if (!module) return;
    if (!opened.has(view)) opened.set(view, module.open());
    by(view).inert = false;
  }
  if (own === turn) opened.get(view)?.show?.(decoded(rest));
}

/** A view's module, also when the server has to be waited for; null when another view is wanted meanwhile. */
async function load(view, own) {
  const name = `the view ${view}`;
  while (own === turn) {
    try {
      const module = await MODULES[view]();
      connected(name);
      for (const other of NAMES) MODULES[other]().catch(() => {}); // so that they are here when the server is not
      return module;
    } catch (error) {
      if (!/import/i.test(error.message)) throw error; // every browser has the word for a module that did not come
      lost(name);
      await new Promise((settle) => setTimeout(settle, AGAIN_MS));
    }
  }
  forget(name);
  return null;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return ""; // an address that somebody cut
  }
}
