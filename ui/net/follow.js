/** Following a stream of events for as long as wanted: a connection that breaks is taken up after the last id. */

import { Refused, againMs, request } from "./api.js";
import { REACHED, connected, forget, lost } from "./connection.js";
import { readEvents } from "./sse.js";

const SILENT_MS = 45_000; // the server says something every 15 s
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;

/**
 * Follow until `take` says that it has what it came for, the server has nothing more, or the signal comes.
 * @param {object} options
 * @param {string} options.name for the banner
 * @param {(lastId: string | null) => [string, RequestInit?]} options.ask the request after an id
 * @param {(kind: string, data: any, id: string | null) => boolean | void} options.take true ends it
 * @param {AbortSignal} options.signal
 * @param {(response: Response) => void} [options.begun]
 * @param {(all: boolean) => void} [options.placed] the stream has told its place: what happens from here on is told;
 *   all of what had happened before, too, where this is true
 * @param {(error: Error) => void} [options.troubled] it does not work now, and is tried again
 * @param {string | null} [options.lastId]
 * @param {boolean} [options.eager] a refusal of the first request is an error, whatever it is
 * @throws {Refused} when asking again would not help
 */
export async function follow({ name, ask, take, signal, begun = () => {}, placed = () => {}, troubled = () => {}, lastId = null, eager = false }) {
  let wait = FIRST_WAIT_MS;
  try {
    while (!signal.aborted) {
      let why = "Connection lost";
      const silence = new AbortController();
      try {
        const [path, init = {}] = ask(lastId);
        const headers = { Accept: "text/event-stream", ...init.headers, ...(lastId ? { "Last-Event-ID": lastId } : {}) };
        const response = await request(path, { ...init, headers, signal: AbortSignal.any([signal, silence.signal]) });
        connected(name);
        eager = false;
        begun(response);
        if (response.status === 204) return;
        let timer = setTimeout(() => silence.abort(), SILENT_MS);
        const heard = () => {
          clearTimeout(timer);
          timer = setTimeout(() => silence.abort(), SILENT_MS);
        };
        try {
          for await (const { kind, text, id } of readEvents(response, heard)) {
            wait = FIRST_WAIT_MS;
            const ended = text !== null && take(kind, JSON.parse(text), id);
            lastId = id ?? lastId;
            if (lastId !== null) placed(text === null);
            if (ended) return;
          }
        } finally {
          clearTimeout(timer);
        }
      } catch (error) {
        if (signal.aborted) return;
        const again = againMs(error, wait);
        if (again === null || (eager && error instanceof Refused)) throw error;
        wait = again;
        why = error instanceof Refused ? `The server answers ${error.status}` : "Connection lost";
        if (error.name !== "AbortError") troubled(error);
      }
      if (signal.aborted) return;
      lost(name, why);
      await pause(wait * (0.75 + Math.random() / 2), signal);
      wait = Math.min(2 * wait, LONGEST_WAIT_MS);
    }
  } finally {
    forget(name);
  }
}

/** Wait, or until the machine is online or the server was reached again, or until the signal comes. */
function pause(ms, signal) {
  return new Promise((settle) => {
    const end = () => {
      clearTimeout(timer);
      for (const kind of ["online", REACHED]) removeEventListener(kind, end);
      signal.removeEventListener("abort", end);
      settle(undefined);
    };
    const timer = setTimeout(end, ms);
    for (const kind of ["online", REACHED]) addEventListener(kind, end);
    signal.addEventListener("abort", end);
  });
}
