/** The API key, kept in this tab until it is closed, and the dialog that asks for it. */

import { by } from "../page/elements.js";

const KEPT = "lumina.key";
/** @type {Promise<boolean> | null} one question at a time, however many requests were refused */
let asking = null;
let declinedAt = -1;

/** Headers that carry the key. @returns {Record<string, string>} */
export function keyHeaders() {
  const key = sessionStorage.getItem(KEPT);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/**
 * Ask for a key, unless another one was given, or none, since the request that was refused.
 * @param {string} why @param {Record<string, string>} sent the headers that were refused
 * @param {number} sentAt by performance.now()
 * @returns {Promise<boolean>} whether there is one to try
 */
export function askForKey(why, sent, sentAt) {
  if (keyHeaders().Authorization !== sent.Authorization) return Promise.resolve(true);
  if (sentAt < declinedAt) return Promise.resolve(false);
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
      else declinedAt = performance.now();
      settle(Boolean(given));
    }, { once: true });
  });
}
