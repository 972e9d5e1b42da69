/** The API key, kept in this tab until it is closed, and the dialog that asks for it. */

import { by } from "../page/elements.js";

const KEPT = "lumina.key";
/** @type {Promise<boolean> | null} one question at a time, however many requests were refused */
let asking = null;

/** Headers that carry the key. @returns {Record<string, string>} */
export function keyHeaders() {
  const key = sessionStorage.getItem(KEPT);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/**
 * Ask for a key, unless another one was given since the request that was refused.
 * @param {string} why @param {Record<string, string>} sent the headers that were refused
 * @returns {Promise<boolean>} whether there is one to try
 */
export function askForKey(why, sent) {
  if (keyHeaders().Authorization !== sent.Authorization) return Promise.resolve(true);
  asking ??= ask(why).finally(() => (asking = null));
  return asking;
}

function ask(why) {
  sessionStorage.removeItem(KEPT);
  const dialog = by("key-dialog");
  by("key-why").textContent = why;
  by("key").value = "";
  dialog.returnValue = "";
  document.querySelectorAll("dialog[open]").forEach((one) => /** @type {any} */ (one).close());
  dialog.showModal();
  return new Promise((settle) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "use" && by("key").value.trim();
      by("key").value = "";
      if (given) sessionStorage.setItem(KEPT, given);
      settle(Boolean(given));
    }, { once: true });
  });
}
