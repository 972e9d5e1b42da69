/** Requests to this server, with the key where one is wanted. */

import { askForKey, keyHeaders } from "./key.js";

/** What the server said no with (RFC 9457). */
export class Refused extends Error {
  /** @param {number} status @param {string} words @param {number | null} retryAfterS */
  constructor(status, words, retryAfterS = null) {
    super(words);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/** Nobody answered: fetch says so by a TypeError, in words of the browser's own. */
export class Unreachable extends TypeError {}

/**
 * A response that is well.
 * @param {string} path @param {RequestInit} [options]
 * @throws {Refused} for any other
 * @throws {Unreachable} when there is none
 */
export async function request(path, options = {}) {
  for (;;) {
    const sent = keyHeaders();
    const sentAt = performance.now();
    const response = await fetch(path, { ...options, headers: { ...options.headers, ...sent } }).catch(explain);
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    const words = problem.detail || `The server answered ${response.status}.`;
    const text = typeof words === "string" ? words : JSON.stringify(words);
    if (response.status !== 401 || !(await askForKey(`${text.split(";")[0]}.`, sent, sentAt)))
      throw new Refused(response.status, text, Number(response.headers.get("Retry-After")) || null);
  }
}

/** After how many ms it is worth while to ask again, `least` or more; null where the answer would be the same. */
export function againMs(error, least) {
  if (error instanceof Refused) {
    const passing = error.status >= 500 || error.status === 429 || error.status === 408;
    return passing ? Math.max(least, 1000 * (error.retryAfterS ?? 0)) : null;
  }
  return error instanceof TypeError || error?.name === "AbortError" ? least : null;
}

function explain(error) {
  if (error instanceof TypeError) throw new Unreachable("The server cannot be reached. Is it running, and are you online?");
  throw error;
}

/** The JSON that a GET gives. @param {string} path @param {RequestInit} [options] @returns {Promise<any>} */
export const get = async (path, options) => (await request(path, options)).json();

/** What a request with a JSON body gives. @returns {Promise<any>} */
export async function send(method, path, body, headers = {}) {
  const response = await request(path, {
    method,
    headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return response.status === 204 ? null : response.json();
}

/** A query string; values that are empty are left out. @param {Record<string, string | number | string[] | null>} values */
export function query(values) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(values))
    for (const one of [value].flat()) if (one !== null && one !== "") found.append(name, String(one));
  return found.size ? `?${found}` : "";
}

/** A name that nobody has had, also where the page is not a secure context and randomUUID is missing. */
export function unique() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
