/** The plan: runs of the planner's log, the lattice they walk through, and each step's reasons. */

import { get, query, send } from "../net/api.js";
import { follow } from "../net/follow.js";
import { button, by, make, say } from "../page/elements.js";
import { place, rename } from "../page/views.js";
import { ago, some } from "../page/wording.js";
import { diagram } from "./diagram.js";
import { PlannedRun, imagined } from "./log.js";
import { picture } from "./picture.js";
import { describeStep, wayName } from "./step.js";

const BACK_MS = 24 * 3600 * 1000;
const MAX_RUNS = 40;

/** @returns {import("../page/views.js").View} */
export function open() {
  return new PlanView();
}

class PlanView {
  /** @type {Map<string, PlannedRun>} */ runs = new Map();
  /** @type {Map<string, Promise<any>>} */ lattices = new Map();
  /** @type {PlannedRun | null} */ run = null;
  /** Which round is explained; null: always the latest. @type {number | null} */ round = null;
  lattice = null;
  /** The state that was clicked. @type {string | null} */ chosen = null;
  wanted = "";
  drawing = 0;
  /** @type {AbortController | null} */ following = null;
  /** Where to go on. @type {string | null} */ lastId = null;
  /** The log was read to its end. */ caughtUp = false;

  constructor() {
    by("plan-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.imagine(by("plan-message").value.trim(), by("plan-mode").value);
    });
  }

  show(id) {
    this.wanted = id;
    if (id && this.runs.has(id)) this.choose(this.runs.get(id));
    else if (!id && this.run?.id) rename("plan", this.run.id);
    if (!this.following) this.follow();
    this.later();
  }

  /** Nothing is missed: it goes on after the last id when it is looked at again. */
  hide() {
    this.following?.abort();
    this.following = null;
  }

  async follow() {
    const own = (this.following = new AbortController());
    const note = by("plan-none");
    const since = Date.now() - BACK_MS;
    say(note, "loading …");
    try {
      await follow({
        name: "planner",
        signal: own.signal,
        lastId: this.lastId,
        ask: () => [`/planner/logs${query({ after: `${since}-0` })}`],
        take: (_, event, id) => {
          this.lastId = id ?? this.lastId;
          this.take(event);
        },
        placed: (all) => {
          if (!all) return;
          this.caughtUp = true;
          say(note, "None yet.");
          this.later();
        },
        troubled: (error) => {
          say(note, error.message, true);
          this.later();
        },
      });
    } catch (error) {
      if (own !== this.following) return;
      say(note, error.message, true);
      this.following = null;
      this.later();
    }
  }

  take(event) {
    if (!event.task_id) return;
    let run = this.runs.get(event.task_id);
    if (!run) this.runs.set(event.task_id, (run = new PlannedRun(event.task_id, event.ts)));
    if (!run.take(event)) return;
    for (const id of this.runs.keys()) if (this.runs.size > MAX_RUNS && id !== this.run?.id) this.runs.delete(id);
    // Somebody who has chosen a run keeps it; else the newest is shown.
    if (this.wanted ? run.id === this.wanted && this.run !== run : event.type === "plan.start") this.choose(run, false);
    this.later();
  }

  async imagine(message, mode) {
    const note = by("plan-note");
    say(note, "planning …");
    try {
      const described = await send("POST", "/masterchat/plan", { message, mode });
      say(note, "");
      this.wanted = "imagined";
      this.choose(imagined(message, described));
    } catch (error) {
      say(note, error.message, true);
    }
  }

  choose(run, named = true) {
    this.run = run;
    this.round = null;
    this.chosen = null;
    by("plan-state").textContent = "";
    if (named && run.id && document.body.dataset.view === "plan") rename("plan", run.id);
    this.later();
  }

  later() {
    this.drawing ||= requestAnimationFrame(() => {
      this.drawing = 0;
      if (document.body.dataset.view === "plan") this.paint();
    });
  }

  async paint() {
    const { run } = this;
    this.paintRuns();
    by("plan-empty").hidden = Boolean(run) || !this.caughtUp || this.missing;
    by("plan-missing").hidden = Boolean(run) || !this.caughtUp || !this.missing;
    by("plan-shown").hidden = !run;
    if (!run) return;
    by("plan-title").textContent = run.title;
    by("plan-status").textContent = [run.intent, run.status, run.outcome?.status === "failed" ? run.outcome.reason : ""].filter(Boolean).join(" · ");
    this.paintSteps();
    const lattice = await this.latticeOf(run);
    if (run !== this.run || !lattice) return;
    this.lattice = lattice;
    const found = diagram(lattice, run);
    const running = run.outcome ? [] : (run.rounds.at(-1)?.decision.run ?? []).map((step) => step.goal).filter((goal) => !this.endedNow(goal));
    by("plan-picture").replaceChildren(picture(found, { live: !run.outcome, running, chosen: this.chosen, choose: (key) => this.chooseState(key, found) }));
    by("plan-size").textContent = lattice.complete
      ? `${some(lattice.states.length, "feasible state")} of ${some(lattice.goals.length, "goal")}`
      : `${some(lattice.goals.length, "goal")} make too many states to draw all; shown are those that were passed and what lies directly above`;
  }

  /** The address names a run that the log does not have. */
  get missing() {
    return Boolean(this.wanted) && this.wanted !== "imagined" && !this.runs.has(this.wanted);
  }

  endedNow(goal) {
    return this.run.ends.some((one) => one.goal === goal && one.ok);
  }

  /** The lattice of a run's intent and topics, asked for once. */
  async latticeOf(run) {
    if (!run.intent) return null;
    const path = `/planner/lattice${query({ intent: run.intent, topics: run.topics.slice(0, 20) })}`;
    if (!this.lattices.has(path)) this.lattices.set(path, get(path));
    try {
      return await this.lattices.get(path);
    } catch (error) {
      this.lattices.delete(path);
      by("plan-size").textContent = error.message;
      by("plan-picture").replaceChildren();
      return null;
    }
  }

  paintRuns() {
    const newest = [...this.runs.values()].sort((one, other) => other.ts - one.ts);
    by("plan-runs").replaceChildren(
      ...newest.map((run) =>
        make("li", {}, make("a", { href: place("plan", run.id), "aria-current": run === this.run && "true" },
          make("span", { class: "title" }, run.title), make("small", {}, `${run.intent} · ${run.status} · ${ago(run.ts)}`)))));
    by("plan-none").hidden = newest.length > 0 && !by("plan-none").classList.contains("problem");
  }

  paintSteps() {
    const { run } = this;
    const shown = this.round ?? run.rounds.at(-1)?.round;
    const focused = document.activeElement?.closest?.("#plan-steps button")?.getAttribute("data-round");
    by("plan-steps").replaceChildren(
      ...run.rounds.map((round) => {
        const names = round.decision.run.map(({ goal, way }) => `${goal} by ${wayName(way, goal)}`).join(", ");
        const words = round.decision.verdict === "run" ? names : round.decision.verdict === "done" ? "every target holds" : round.decision.why;
        const pressed = round.round === shown;
        const one = button("", () => this.chooseRound(round.round), { "aria-pressed": String(pressed), class: "step", "data-round": round.round });
        one.append(make("b", {}, `${round.round}`), make("span", {}, words));
        return make("li", {}, one);
      }));
    if (focused) by("plan-steps").querySelector(`[data-round="${focused}"]`)?.focus();
    const round = run.rounds.find((one) => one.round === shown);
    by("plan-detail").replaceChildren(...(round ? describeStep(run, round, this.lattice) : []));
    if (!run.id && run.outcome) by("plan-detail").append(make("details", {}, make("summary", {}, "In words"), make("pre", { class: "words", tabindex: "0" }, run.outcome.reason)));
  }

  chooseRound(round) {
    this.round = round;
    this.later();
  }

  /** A state of the picture: the round that stood there, or what it holds. */
  chooseState(key, found) {
    this.chosen = key;
    const round = this.run.rounds.findLast((one) => found.states.find((state) => state.key === key)?.goals.every((goal) => one.situation.holding.includes(goal)) && found.visited.has(key));
    if (round) this.round = round.round;
    const goals = found.states.find((state) => state.key === key)?.goals ?? [];
    by("plan-state").textContent = goals.length ? `Holds: ${goals.join(", ")}` : "∅: nothing holds yet";
    this.later();
  }
}
