/** The Hasse diagram as an SVG picture: grey what could be, thick what was walked, dashed what is planned. */

import { draw } from "../page/elements.js";

const SIDE = 14;
const LINES = 4; // of what one step added; more would reach into the next level
const LABELS = 205; // room for the names of what each step added, left of the chain

/** @param {ReturnType<import("./diagram.js").diagram>} found @param {{ live: boolean, running: string[], chosen: string | null, choose: (key: string) => void }} options */
export function picture(found, { live, running, chosen, choose }) {
  const at = new Map(found.states.map((state) => [state.key, state]));
  const width = found.width + LABELS + 3 * SIDE;
  const height = found.height + 4 * SIDE;
  const svg = draw("svg", { viewBox: `${-LABELS} ${-2 * SIDE} ${width} ${height}`, width, height, class: "hasse", role: "img", "aria-label": spoken(found, running) });
  for (const edge of found.covers) svg.append(line(at, edge, "cover"));
  for (const edge of found.planned) svg.append(line(at, edge, "planned"));
  for (const edge of found.walked) svg.append(line(at, edge, "walked"));
  for (const edge of found.planned) svg.append(added(at, edge, running));
  for (const edge of found.walked) svg.append(added(at, edge, []));
  const ahead = new Set(found.planned.map(({ to }) => to));
  for (const state of found.states) {
    const kind = live && state.key === found.now ? "now" : found.visited.has(state.key) ? "visited" : ahead.has(state.key) ? "ahead" : "";
    const circle = draw("circle", { cx: state.x, cy: state.y, r: kind ? 10 : 7, class: `state ${kind}${state.key === chosen ? " chosen" : ""}` },
      draw("title", {}, state.goals.join(", ") || "∅: nothing holds yet"));
    circle.addEventListener("click", () => choose(state.key));
    svg.append(circle);
  }
  return svg;
}

function line(at, { from, to }, kind) {
  const [a, b] = [at.get(from), at.get(to)];
  return draw("line", { x1: a.x, y1: a.y, x2: b.x, y2: b.y, class: kind });
}

/** What a step added, beside its upper end. */
function added(at, { from, to }, running) {
  const [a, b] = [at.get(from), at.get(to)];
  const gained = b.goals.filter((goal) => !a.goals.includes(goal));
  const lostAgain = a.goals.filter((goal) => !b.goals.includes(goal));
  const words = [...gained.map((goal) => `+ ${goal}`), ...lostAgain.map((goal) => `− ${goal}`)];
  const lines = words.length > LINES ? [...words.slice(0, LINES - 1), `and ${words.length - LINES + 1} more`] : words;
  const live = gained.some((goal) => running.includes(goal));
  const x = Math.min(b.x, 0) - SIDE - 4;
  return draw("text", { class: live ? "gain running" : "gain", "text-anchor": "end" }, draw("title", {}, words.join(", ")),
    ...lines.map((text, n) => draw("tspan", { x, y: b.y + 4 + 14 * n }, cut(text, 25))));
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function spoken({ states, walked, planned }, running) {
  const now = running.length ? `; running now: ${running.join(", ")}` : "";
  return `Hasse diagram of ${states.length} states; ${walked.length} steps walked, ${planned.length} planned${now}. The steps are listed beside it.`;
}
