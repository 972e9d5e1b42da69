/** The planner's log as runs: what each one knew, chose and walked. */

/**
 * @typedef {object} Round
 * @property {number} round
 * @property {number} ts
 * @property {{ targets: string[], topics: string[], holding: string[], ruled_out: string[], costs: Record<string, number> }} situation
 * @property {{ verdict: string, run: any[], plan: any[], cost: number, exact: boolean, fringe: string[], candidates: any[], why: string }} decision
 */

/** One run, as far as it has been heard of. */
export class PlannedRun {
  /** @param {string} id @param {number} ts */
  constructor(id, ts) {
    this.id = id;
    this.ts = ts;
    /** @type {any} */ this.request = null;
    /** @type {Round[]} */ this.rounds = [];
    /** @type {{ goal: string, way: string, agent: string, ok: boolean, seconds: number, usd: number, error?: string }[]} */
    this.ends = [];
    /** @type {{ status: string, reason: string } | null} */ this.outcome = null;
  }

  get title() {
    return this.request?.message || this.request?.topics?.join(", ") || `Run ${this.id.slice(0, 8)}`;
  }

  get intent() {
    return this.request?.intent ?? "";
  }

  get topics() {
    return this.rounds.at(-1)?.situation.topics ?? this.request?.topics ?? [];
  }

  get status() {
    return this.outcome?.status ?? "running";
  }

  /** An event of the run. @returns {boolean} whether it changed anything */
  take({ type, ts, data }) {
    if (type === "plan.start") this.request = data.request ?? this.request;
    else if (type === "plan.done") this.outcome = data;
    else if (type === "plan.step" && data.decision) {
      if (this.rounds.some((one) => one.round === data.round)) return false;
      this.rounds.push({ round: data.round, ts, situation: data.situation, decision: data.decision });
      this.rounds.sort((one, other) => one.round - other.round);
    } else if (type === "plan.step") this.ends.push(data);
    else return false;
    return true;
  }
}

/** A plan that nobody has run, as POST /masterchat/plan describes it. */
export function imagined(message, described) {
  const run = new PlannedRun("", Date.now());
  run.request = { message, intent: described.intent, topics: described.topics };
  run.rounds = [{
    round: 1,
    ts: Date.now(),
    situation: { targets: described.targets, topics: described.topics, holding: described.holding, ruled_out: [], costs: {} },
    decision: described,
  }];
  run.outcome = { status: "not run", reason: described.explanation };
  return run;
}
