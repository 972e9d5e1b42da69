"""A decision of the planner in words, for people who want to know why these steps and what else there was."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from agents.spec import RunRequest
from graphs.drawing import plan_mermaid
from graphs.goals import Cost, GoalFile, GoalSpec, WaySpec, parse_instance
from graphs.intents import find_planned_intent
from graphs.planner import Decision, Situation, decide
from graphs.runs import Runner
from graphs.search import RESOLUTION, Plan, Step


async def describe_request(runner: Runner, asked: dict[str, Any], owner: str) -> dict[str, Any]:
    """The plan for a request as JSON.

    Args:
        runner: The graph and its services.
        asked: Fields of a ``RunRequest``; an intent ``auto``, or one without goals, is replaced by the nearest with
            goals.
        owner: Whose memory counts.

    Raises:
        InvalidRequest: unknown intent, or nothing to work on.
    """
    known = runner.goals.intents.get(asked["intent"])
    if asked["intent"] == "auto" or (known is not None and not known.goals):
        nearest = await find_planned_intent(runner.goals, runner.context.embedder, asked["message"])
        asked = {**asked, "intent": nearest}
    request = RunRequest(**asked, owner=owner)
    situation = await runner.situation(request)
    return describe(runner.goals, request.intent, situation, decide(runner.goals, situation))


def describe(goals: GoalFile, intent: str, situation: Situation, decision: Decision) -> dict[str, Any]:
    """A decision for a request as plain JSON: what the log has of it, and its explanation and picture.

    Args:
        goals: The goal file that the decision was made with.
        intent: The intent that was planned for.
        situation: What was known.
        decision: What the planner decided.
    """
    described = decision.to_json()
    steps = decision.plan.steps if decision.plan else ()
    for entry, step in zip(described["plan"], steps, strict=True):
        entry |= {"agent": _specs(goals, step)[1].agent, "requires": sorted(step.requires)}
    return {
        "intent": intent,
        "topics": list(situation.topics),
        "targets": sorted(goals.instances(situation.targets, situation.topics)),
        "holding": sorted(situation.holding),
        **described,
        "explanation": explain(goals, intent, situation, decision),
        "mermaid": plan_mermaid(decision.plan) if decision.plan else "",
    }


def explain(goals: GoalFile, intent: str, situation: Situation, decision: Decision) -> str:
    """Why each step, what the other ways would have cost, and what is not known yet. Arguments as for ``describe``."""
    targets = goals.instances(situation.targets, situation.topics)
    asked = f"A request of the kind {intent} wants {_listed(sorted(targets)) or 'nothing'}."
    found = decision.plan
    if found is None:
        done = "All of it holds already: nothing is to be done."
        return f"{asked} {done if decision.verdict == 'done' else f'It cannot be had: {decision.why}.'}\n"
    least = "no plan costs less" if found.exact else f"none can cost less than {found.bound:.4g} s"
    steps = "1 step" if len(found.steps) == 1 else f"{len(found.steps)} steps"
    lines = [f"{asked} That takes {steps} and is expected to cost {found.cost:.4g} s; {least}."]
    useful = {goal.id for goal in _leading_to(goals, situation.targets)}
    held = [one for one in sorted(situation.holding) if parse_instance(one)[0] in useful]
    lines.append(f"What holds already: {_listed(held) or 'nothing'}.")
    lines += [f"Another article is needed: {why}." for why in situation.links.values()]
    for number in range(1, len(found.steps) + 1):
        lines += ["", *_step(goals, number, found, targets, decision)]
    return "\n".join([*lines, "", *_ending(goals, situation, found, decision)]) + "\n"


def explain_log(goals: GoalFile, log: Iterable[Mapping[str, Any]]) -> str:
    """Every decision of a task in words, from its log.

    Args:
        goals: The goal file that the log was made with.
        log: Data of ``plan.step`` events with a decision.
    """
    told = []
    for entry in log:
        situation = Situation.from_json(entry["situation"])
        wanted = set(situation.targets)
        intent = next((name for name, one in goals.intents.items() if set(one.goals) == wanted), "unknown")
        told += [f"Round {entry['round']}", explain(goals, intent, situation, decide(goals, situation))]
    return "\n".join(told)


def _step(goals: GoalFile, number: int, found: Plan, targets: Collection[str], decision: Decision) -> Iterator[str]:
    step = found.steps[number - 1]
    goal, way = _specs(goals, step)
    place = {one.goal: position for position, one in enumerate(found.steps, 1)}
    before = sorted(place[one] for one in step.requires if one in place)
    when = "now" if step in decision.steps else f"after {_listed([str(one) for one in before], 'step')}"
    yield f"{number}. {step.goal} by {way.id}, {when}: agent {way.agent}, {_price(goals, way.cost, step.cost)}."
    users = [str(place[one.goal]) for one in found.steps if step.goal in one.requires]
    reasons = ["it is what was asked for"] if step.goal in targets else []
    reasons += [f"{_listed(users, 'step')} {'needs' if len(users) == 1 else 'need'} it"] if users else []
    yield f"   {goal.title}; {' and '.join(reasons)}."
    others = next(one["others"] for one in decision.candidates if one["goal"] == step.goal)
    present = {parse_instance(one)[0] for one in (*place, *found.start)}
    for other in others:
        spec = next(one for one in goal.ways if f"{goal.id}.{one.id}" == parse_instance(other["way"])[0])
        yield f"   {_instead(spec, other, found.cost, present)}"
    if not others:
        yield "   It is the only way."


def _instead(way: WaySpec, other: Mapping[str, Any], cost: float, present: Collection[str]) -> str:
    """What another way would have meant for the whole plan."""
    if other["total"] is None:
        return f"By {way.id} there is no plan: {other['reason']}."
    extra = other["total"] - cost
    if abs(extra) < RESOLUTION:
        return f"By {way.id} the whole plan would cost as much; of equals the shorter is taken, then the first by name."
    besides = [required for required in way.requires if required not in present]
    causes = [f"needs {_listed(besides)} too"] if besides else []
    causes += [f"counts {way.cost.loss_s:.4g} s for its poorer result"] if way.cost.loss_s else []
    why = f": {way.id} {' and '.join(causes)}" if causes else ""
    return f"By {way.id} the whole plan would cost {other['total']:.4g} s, {extra:.4g} s more{why}."


def _ending(goals: GoalFile, situation: Situation, found: Plan, decision: Decision) -> Iterator[str]:
    first = [str(number) for number, step in enumerate(found.steps, 1) if step in decision.steps]
    together = ", side by side, for none of them needs another" if len(first) > 1 else ""
    yield f"Now {_listed(first, 'step')} would run{together}. Then the facts are checked and the rest is planned again."
    waiting = [] if situation.topics else [goal.id for goal in _leading_to(goals, situation.targets) if goal.each]
    if waiting:
        yield (
            f"The topics are not known yet. Once they are, {_listed(waiting)} join the plan for each topic, "
            "and it costs more."
        )


def _leading_to(goals: GoalFile, targets: Collection[str]) -> list[GoalSpec]:
    """The goals that some way towards the targets requires, in the order of the file."""
    found, front = set[str](), list(targets)
    known = {goal.id: goal for goal in goals.goals}
    while front:
        if (one := front.pop()) not in found:
            found.add(one)
            front += [required for way in known[one].ways for required in way.requires]
    return [goal for goal in goals.goals if goal.id in found]


def _price(goals: GoalFile, cost: Cost, expected: float) -> str:
    """An expected cost and what it is made of; a cost that is not the file's was learned."""
    if not math.isclose(goals.seconds(cost), expected, abs_tol=1e-9):
        return f"{expected:.4g} s as learned here ({goals.seconds(cost):.4g} s in the goal file)"
    parts = [f"{cost.seconds:.4g} s of work"] if cost.seconds else []
    parts += [f"{cost.usd:.4g} USD, worth {cost.usd * goals.limits.seconds_per_usd:.4g} s"] if cost.usd else []
    parts += [f"{cost.loss_s:.4g} s for its poorer result"] if cost.loss_s else []
    return f"{expected:.4g} s" + (f" ({' and '.join(parts)})" if len(parts) > 1 or cost.usd or cost.loss_s else "")


def _specs(goals: GoalFile, step: Step) -> tuple[GoalSpec, WaySpec]:
    goal_id, _, way_id = parse_instance(step.way)[0].partition(".")
    goal = next(one for one in goals.goals if one.id == goal_id)
    return goal, next(one for one in goal.ways if one.id == way_id)


def _listed(names: Sequence[str], noun: str = "") -> str:
    """``a, b and c``; with a noun ``step 1``, ``steps 1 and 2``."""
    text = " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
    return f"{noun}{'s' if len(names) > 1 else ''} {text}" if noun and names else text
