"""The models under ``/v1``: the graph, one for each agent that people call, the chat models behind, the embedder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agents.spec import Registry
from graphs.goals import GoalFile
from graphs.runs import Runner
from models.endpoints import Feature
from serving.openai.errors import unknown_model

GRAPH = "lumina"
"""The model that is the whole graph; an agent's is this name, a hyphen, and the agent's name."""
CREATED = 1_763_856_000
"""OpenAI's clients want a date; that of a model behind is not known, so every model has this one."""


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of the list."""

    id: str
    kind: Literal["graph", "chat", "embeddings"]
    owned_by: str
    description: str = ""
    intent: str | None = None
    """Of a graph's model: what it runs; None finds it for each message."""
    root: str = ""
    """The model that stands behind this name."""
    features: frozenset[Feature] = field(default_factory=frozenset)

    def to_json(self) -> dict[str, Any]:
        """OpenAI's model object; what is not OpenAI's stands after its fields."""
        own = {"description": self.description, "root": self.root, "kind": self.kind}
        return {"id": self.id, "object": "model", "created": CREATED, "owned_by": self.owned_by, **own}


def catalogue(runner: Runner, alias: str) -> dict[str, Model]:
    """Every model by its id.

    Args:
        runner: The graph and its services.
        alias: A name that resolves whatever is configured, to the chat model in use where no provider has it.
    """
    every = [Model(GRAPH, "graph", GRAPH, "The whole graph: finds out what is asked, does it, cites.", root=GRAPH)]
    for agent, intent in agent_intents(runner.registry, runner.goals).items():
        text = runner.registry[agent].description
        every.append(Model(f"{GRAPH}-{agent}", "graph", GRAPH, text, intent=intent, root=GRAPH))
    every += [model for model in (find_model(runner, name, alias) for name in _names(runner, alias)) if model]
    found: dict[str, Model] = {}
    for model in every:
        found.setdefault(model.id, model)
    return found


def resolve(runner: Runner, name: str, alias: str) -> Model:
    """The model of this name; see ``catalogue``.

    Raises:
        OpenAIError: there is none, 404.
    """
    if name == GRAPH or name.startswith(f"{GRAPH}-"):
        found = catalogue(runner, alias).get(name)
    else:
        found = find_model(runner, name, alias)
    if found is None:
        raise unknown_model(name)
    return found


def find_model(runner: Runner, name: str, alias: str) -> Model | None:
    """A chat model behind, or the embedder, by its own name."""
    providers = runner.context.chat.providers()
    for provider in providers:
        if name in (provider.model_id, f"{provider.model_id}:latest"):
            text = f"The chat model {provider.model_id} at {provider.where}, passed through."
            return Model(name, "chat", provider.name, text, root=provider.model_id, features=provider.features)
    if name == runner.context.embedder.model_name:
        return Model(name, "embeddings", GRAPH, "Embeddings of what is read and asked.", root=name)
    if name == alias:
        used = next((provider for provider in providers if provider.in_use), providers[0])
        text = f"Stands for the chat model in use, {used.model_id}."
        return Model(name, "chat", used.name, text, root=used.model_id, features=used.features)
    return None


def agent_intents(registry: Registry, goals: GoalFile) -> Mapping[str, str]:
    """The agents that people can call by name, each with the intent that a message to it has.

    An agent is called for its most valuable goal, in the intent that needs the fewest goals beside it; of equals, the
    first of the goal file. Where several agents would lead to one intent, the one with the most valuable goal stands
    for it. The agent that decides on failures works for the others and is not called.
    """
    needs = {name: _closure(goals, intent.goals) for name, intent in goals.intents.items()}
    best: dict[str, tuple[float, str]] = {}
    for agent, spec in registry.items():
        reached = [goal for goal in goals.goals if any(way.agent == agent for way in goal.ways)]
        if spec.on_failure is not None or not reached:
            continue
        aim = max(reached, key=lambda goal: goal.value)
        leading = [name for name, needed in needs.items() if aim.id in needed]
        if leading:
            intent = min(leading, key=lambda name: len(needs[name]))
            best[intent] = max(best.get(intent, (-1.0, "")), (aim.value, agent), key=lambda one: one[0])
    return {agent: intent for intent, (_, agent) in sorted(best.items(), key=lambda item: item[1][1])}


def _closure(goals: GoalFile, targets: tuple[str, ...]) -> set[str]:
    """The targets and whatever some way to them requires."""
    known = {goal.id: goal for goal in goals.goals}
    found, front = set[str](), list(targets)
    while front:
        if (one := front.pop()) not in found:
            found.add(one)
            front += [required for way in known[one].ways for required in way.requires]
    return found


def _names(runner: Runner, alias: str) -> list[str]:
    providers = [provider.model_id for provider in runner.context.chat.providers()]
    return list(dict.fromkeys([*providers, alias, runner.context.embedder.model_name]))
