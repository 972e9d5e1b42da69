/** One connection to GET /events/stream for all views: what happens to the graph and to tasks, from now on. */

import { query } from "./api.js";
import { follow } from "./follow.js";

const STREAMS = "graph_stream,tasks";
/** @type {Set<{ prefix: string, take: (event: any) => void }>} */
const listening = new Set();
let begun = false;
let late = false; // somebody did not wait until the stream had told its place
let settle = () => {};
const placed = new Promise((done) => (settle = () => done(undefined)));
const PATIENCE_MS = 3_000;

/**
 * Settles when what happens from now on will be told: who asks only then what is there misses nothing in between.
 * Without a connection it does not wait for ever; there will be a `gap` when there is one.
 */
export async function told() {
  if (await Promise.race([placed.then(() => false), new Promise((done) => setTimeout(() => done(true), PATIENCE_MS))])) late = true;
}

/**
 * Hear of events whose type begins so; `gap` comes too, as a type, when something may be missing.
 * @param {string} prefix such as node. or task.
 * @param {(event: any) => void} take
 */
export function listen(prefix, take) {
  listening.add({ prefix, take });
  if (begun) return;
  begun = true;
  let tries = 0;
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
  }).catch(() => (begun = false)); // no key was given: the next view that listens asks again
}

function tell(event) {
  for (const { prefix, take } of listening) if (event.type === "gap" || event.type?.startsWith(prefix)) take(event);
}
