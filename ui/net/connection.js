/** The banner that says when something that is followed has no connection. */

import { by } from "../page/elements.js";

const PATIENCE_MS = 1_500; // shorter breaks are mended before anybody reads of them
const SHOWN_AGAIN_MS = 2_500;

export const REACHED = "lumina:reached"; // told to the window when a connection is there again: others need not wait
/** @type {Set<string>} */
const missing = new Set();
let timer = 0;

/** @param {string} name @param {string} [why] */
export function lost(name, why = "Connection lost") {
  if (missing.has(name)) return; // its patience runs already
  missing.add(name);
  if (missing.size === 1) later(PATIENCE_MS, () => show("lost", `${why}. Trying again; nothing will be missing.`));
}

/** @param {string} name */
export function connected(name) {
  if (!missing.delete(name)) return;
  if (missing.size) return void dispatchEvent(new Event(REACHED));
  clearTimeout(timer);
  if (by("banner").hidden) return;
  show("back", "Connected again.");
  later(SHOWN_AGAIN_MS, () => (by("banner").hidden = true));
}

/** It is not followed any more. @param {string} name */
export function forget(name) {
  if (!missing.delete(name) || missing.size) return;
  clearTimeout(timer);
  by("banner").hidden = true;
}

function later(ms, action) {
  clearTimeout(timer);
  timer = setTimeout(action, ms);
}

function show(state, words) {
  const banner = by("banner");
  banner.dataset.state = state;
  banner.textContent = words;
  banner.hidden = false;
}
