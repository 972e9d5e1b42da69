/** Which states a Hasse diagram shows, and where: ∅ below, one level for each number of goals. */

/** @typedef {{ key: string, goals: string[], x: number, y: number }} State */
/** @typedef {{ from: string, to: string }} Edge */

export const COLUMN = 74;
export const ROW = 66;

const keyOf = (goals) => [...goals].sort().join("\n");

/**
 * @param {any} lattice what GET /planner/lattice gives
 * @param {import("./log.js").PlannedRun} run
 * @returns {{ states: State[], covers: Edge[], walked: Edge[], planned: Edge[], visited: Set<string>, now: string, width: number, height: number }}
 */
export function diagram(lattice, run) {
  const known = new Set(lattice.goals.map((goal) => goal.id));
  /** @type {Map<string, string[]>} */
  const states = new Map();
  const covers = new Map();
  const add = (goals) => {
    const kept = [...new Set(goals)].filter((goal) => known.has(goal)).sort();
    const key = keyOf(kept);
    if (!states.has(key)) states.set(key, kept);
    return key;
  };
  const join = (from, to) => from !== to && covers.set(`${from}\r${to}`, { from, to });
  const listed = lattice.states.map((state) => add(state.map((place) => lattice.goals[place].id)));
  for (const [lower, upper] of lattice.covers) join(listed[lower], listed[upper]);

  const walked = [];
  const visited = new Set();
  let now = "";
  for (const { situation, decision } of run.rounds) {
    const held = situation.holding.filter((goal) => known.has(goal));
    const key = add(held);
    if (visited.size && key !== now) walked.push({ from: now, to: key });
    visited.add(key);
    now = key;
    if (!lattice.complete) for (const goal of decision.fringe) if (known.has(goal)) join(key, add([...held, goal]));
  }
  const planned = [];
  const latest = run.rounds.at(-1);
  if (latest && run.status !== "done") {
    let held = latest.situation.holding.filter((goal) => known.has(goal));
    let from = now;
    for (const { goal } of latest.decision.plan) {
      held = [...held, goal];
      const to = add(held);
      if (to !== from) planned.push({ from, to });
      from = to;
    }
  }
  const drawn = new Set([...walked, ...planned].map(({ from, to }) => `${from}\r${to}`));
  const plain = [...covers].filter(([key]) => !drawn.has(key)).map(([, edge]) => edge);
  return { ...placed(states, [...plain, ...walked, ...planned], new Set([...visited, ...planned.map(({ to }) => to)])), covers: plain, walked, planned, visited, now };
}

/** Levels by number of goals; in a level near what lies below (the barycentre rule of Sugiyama et al. 1981). */
function placed(states, edges, spine) {
  /** @type {Map<number, any[]>} */
  const levels = new Map();
  for (const [key, goals] of states) {
    if (!levels.has(goals.length)) levels.set(goals.length, []);
    levels.get(goals.length).push({ key, goals, x: 0, y: 0 });
  }
  const below = new Map();
  for (const { from, to } of edges) below.set(to, [...(below.get(to) ?? []), from]);
  const at = new Map();
  const sizes = [...levels.keys()].sort((a, b) => a - b);
    for (const [row, size] of sizes.entries()) {
    const level = levels.get(size);
    const centre = (one) => {
      const under = (below.get(one.key) ?? []).map((key) => at.get(key)?.x).filter((x) => x !== undefined);
      return under.length ? under.reduce((a, b) => a + b, 0) / under.length : 0;
    };
    level.sort((one, other) => spine.has(other.key) - spine.has(one.key) || centre(one) - centre(other) || (one.key < other.key ? -1 : 1));
    // The way that is walked goes straight up at the left, past levels where it has no state.
    const aside = level.some((one) => spine.has(one.key)) || !spine.size ? 0 : 1;
    for (const [column, one] of level.entries()) {
      one.x = (column + aside) * COLUMN;
      one.y = (sizes.length - 1 - row) * ROW;
      at.set(one.key, one);
    }
  }
  const width = Math.max(...[...at.values()].map((one) => one.x));
  return { states: [...at.values()], width, height: (sizes.length - 1) * ROW };
}
