/** One connection to GET /events/stream for all views: what happens to the graph and to tasks, from now on. */

import { query } from "./api.js";
import { follow } from "./follow.js";

const STREAMS = "graph_stream,tasks";
/** @type {Set<{ prefix: string, take: (event: any) => void }>} */
const listening = new Set();
/** @type {Promise<void> | null} settles when the stream has told its place */
let placed = null;
let late = false; // somebody did not wait for that
const PATIENCE_MS = 3_000;

/**
 * Hear of events whose type begins so; `gap` comes too, as a type, when something may be missing.
 * @param {string} prefix such as node. or task.
 * @param {(event: any) => void} take
 */
export function listen(prefix, take) {
  listening.add({ prefix, take });
  begin();
}

/**
 * Settles when what happens from now on will be told: who asks only then what is there misses nothing in between.
 * Without a connection it does not wait for ever; there will be a `gap` when there is one.
 * @throws {Refused} when no key was given
 */
export async function told() {
  const patience = new Promise((settle) => setTimeout(() => settle(true), PATIENCE_MS));
  if (await Promise.race([begin(), patience])) late = true;
}

function begin() {
  if (placed) return placed;
  let tries = 0;
  placed = new Promise((settle, refuse) => {
    follow({
      name: "events",
      ask: (lastId) => {
        if (lastId === null && tries++) tell({ type: "gap" }); // never connected yet: nobody knows what was missed
        return [`/events/stream${query({ streams: STREAMS, after: "$" })}`];
      },
      take: (kind, data) => tell(kind === "gap" ? { type: "gap" } : data),
      placed: () => {
        settle();
        if (late) tell({ type: "gap" });
        late = false;
      },
      signal: new AbortController().signal,
    }).catch((error) => {
      placed = null; // the next who listens or asks begins again
      refuse(error);
    });
  });
  placed.catch(() => {}); // who waits for it is told
  return placed;
}

function tell(event) {
  for (const { prefix, take } of listening) if (event.type === "gap" || event.type?.startsWith(prefix)) take(event);
}
