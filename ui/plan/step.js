/** A step of a run in words: why it was chosen, what else there was, what it cost. */

import { make } from "../page/elements.js";
import { clock, duration, some } from "../page/wording.js";

/** @param {import("./log.js").PlannedRun} run @param {import("./log.js").Round} round @param {any} lattice */
export function describeStep(run, round, lattice) {
  const { decision, situation } = round;
  const titles = new Map(lattice?.goals.map((goal) => [goal.id, goal.title]) ?? []);
  const parts = [
    make("h3", {}, `Round ${round.round}`),
    make("p", { class: "soft" }, `${clock(round.ts)} · ${some(situation.holding.length, "goal")} held`),
    make("p", {}, decision.why),
  ];
  if (decision.candidates.length) parts.push(candidates(decision));
  for (const { goal, way } of decision.run) {
    const ended = run.ends.find((one) => one.way === way);
    const how = ended ? `${ended.ok ? "done" : `failed: ${ended.error ?? ""}`} after ${duration(ended.seconds)}${ended.usd ? `, ${ended.usd.toFixed(4)} USD` : ""}` : run.outcome ? "not run" : "running";
    parts.push(make("p", { class: ended && !ended.ok ? "problem" : "" }, make("strong", {}, goal), ` ${titles.has(goal) ? `(${titles.get(goal)}) ` : ""}by ${way}: ${how}.`));
  }
  parts.push(goalList("What held", situation.holding), goalList("What could come next", decision.fringe));
  if (situation.ruled_out.length) parts.push(goalList("Ways ruled out", situation.ruled_out));
  return parts;
}

function candidates({ candidates: found, cost }) {
  const rows = found.flatMap((one) => [
    make("tr", {}, make("th", { scope: "row" }, one.goal), make("td", {}, wayName(one.way, one.goal)),
      make("td", { class: "figure" }, duration(one.cost)), make("td", { class: "figure" }, String(one.value)), make("td", {}, "chosen")),
    ...one.others.map((other) =>
      make("tr", { class: "other" }, make("td", {}), make("td", {}, wayName(other.way, one.goal)),
        make("td", { class: "figure" }, other.total === null ? "–" : `+ ${duration(Math.max(0, other.total - cost))}`),
        make("td", {}), make("td", {}, other.reason || "dearer"))),
  ]);
  const names = ["Goal", "Way", "Cost", "Value", ""].map((name) => make("th", { scope: "col" }, name || make("span", { class: "unseen" }, "Remark")));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Candidates" },
    make("table", {}, make("caption", {}, `Candidates; the plan costs ${duration(cost)}`), make("thead", {}, make("tr", {}, ...names)), make("tbody", {}, ...rows)));
}

function goalList(name, goals) {
  return make("details", {}, make("summary", {}, `${name} (${goals.length})`),
    goals.length ? make("ul", {}, ...goals.map((goal) => make("li", {}, goal))) : make("p", { class: "soft" }, "nothing"));
}

/** A way's id without what its goal's says already: crawled.links[Fractal] → links. */
export function wayName(way, goal) {
  const [base] = goal.split("[");
  return way.replace(`${base}.`, "").replace(/\[.*\]$/s, "");
}
