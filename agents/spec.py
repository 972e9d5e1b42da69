"""What an agent tells the rest of Lumina about itself, and the registry of those that are there.

An agent is one module of a package that ``discover`` is given (``agents`` by default) with a module-level ``SPEC``. The
planner, the graph and the serving read the registry and know no agent by name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from langchain_core.runnables import Runnable
from pydantic import BaseModel, ConfigDict, Field

from agents.context import Context
from errors import LuminaError


class Usage(BaseModel):
    """Tokens as the providers counted them, and what they cost."""

    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    refused: int = Field(default=0, description="Calls of a paid model that the run's budget did not cover.")
    stand_in: str = Field(default="", description="What answered instead, e.g. «the local model SmolLM2».")

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            usd=self.usd + other.usd,
            refused=self.refused + other.refused,
            stand_in=other.stand_in or self.stand_in,
        )


SET_BY_THE_RUN = frozenset({"owner", "carry", "pages_per_step", "max_links", "linked_from"})
"""Fields of an agent's input that whoever runs it sets; nobody is asked for them, and nobody can set them."""


class AgentOutput(BaseModel):
    """What every agent returns beside its own fields."""

    usage: Usage = Field(default_factory=Usage)
    carry: dict[str, Any] | None = Field(
        default=None,
        description="Set when the agent has more to do: hand it back as `carry` to go on from here. "
        "Its `links` are articles that have to be read before: title → `page` that links there, `why`.",
    )


class RunRequest(BaseModel):
    """What somebody asked for."""

    model_config = ConfigDict(extra="forbid")

    intent: str = Field(description="An intent of the goal file, such as wiki_qa, crawl or summarise.")
    message: str = Field(default="", max_length=20_000, description="The question or instruction in words.")
    topics: list[str] = Field(default_factory=list, max_length=20, description="Article titles to start from.")
    hops: int = Field(default=1, ge=0, le=5, description="How many links away from a topic the crawl goes.")
    max_nodes: int = Field(default=30, ge=1, le=5_000, description="How many pages a crawl reads at most, per topic.")
    owner: str = Field(default="local", description="Whose memory the run reads and writes.")
    conversation_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunView:
    """What an agent may see of a run: the request and the results of goals reached so far. Plain JSON values."""

    task_id: str
    request: RunRequest
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Goal instance, e.g. ``crawled[Fractal]`` → the output of the agent that achieved it."""
    failures: tuple[Mapping[str, Any], ...] = ()
    links: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Title of an article without which an agent cannot go on → ``page`` that links to it, ``why`` it is needed."""

    @property
    def topics(self) -> list[str]:
        """The topics of the request, else those that some agent has found for it."""
        if self.request.topics:
            return self.request.topics
        for result in self.results.values():
            if result.get("topics"):
                return list(result["topics"])
        return []


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One way of one goal, given to an agent by the planner."""

    goal: str
    """Goal instance, e.g. ``crawled[Fractal]``."""
    base_goal: str
    """The goal's id in the goal file, e.g. ``crawled``."""
    topic: str | None
    way: str
    """Way instance, e.g. ``crawled.links[Fractal]``."""
    params: Mapping[str, Any] = field(default_factory=dict)
    carry: Mapping[str, Any] | None = None
    attempt: int = 1
    """1 for the first try of this way in this run."""


class FailureDecision(BaseModel):
    """What follows from the failure of a way."""

    way: str
    action: Literal["retry", "rule_out"]
    """Try it again, or never in this run; when no way is left, the run is given up with the reasons."""
    reason: str


Check = Callable[[Context, RunView, str | None], Awaitable[bool]]
"""(context, run, topic) → whether the goal holds, by facts and never by a model's claim."""

InT = TypeVar("InT", bound=BaseModel)
OutT = TypeVar("OutT", bound=AgentOutput)


@dataclass(frozen=True, kw_only=True)
class AgentSpec(Generic[InT, OutT]):
    """Everything that the framework needs to know of an agent."""

    name: str
    """The verb that users know: crawl, summarise, qa."""
    description: str
    """One sentence for ``--help``, playgrounds and model lists."""
    input_type: type[InT]
    output_type: type[OutT]
    build: Callable[[Context], Runnable[InT, OutT]]
    """Makes the agent. Called once per process."""
    request: Callable[[Assignment, RunView], InT]
    """Turns an assignment of the planner into the agent's input."""
    achieves: Mapping[str, Check]
    """Goal id → the check that it holds."""
    on_failure: Callable[[RunView], InT] | None = None
    """For the one agent that decides what follows a failure: makes its input; its output has ``decisions``."""
    runs_per_minute: int | None = None
    """Token bucket per owner; None for agents that cost nothing."""
    explain: Callable[[OutT], str] = lambda output: ""
    """One line on what came out, for people who watch."""


class UnknownAgent(LuminaError):
    """No agent has this name."""


class Registry(Mapping[str, AgentSpec[Any, Any]]):
    """The agents of this application by name, in alphabetical order."""

    def __init__(self, specs: Iterable[AgentSpec[Any, Any]]) -> None:
        self._specs = {spec.name: spec for spec in sorted(specs, key=lambda spec: spec.name)}

    def __getitem__(self, name: str) -> AgentSpec[Any, Any]:
        try:
            return self._specs[name]
        except KeyError:
            raise UnknownAgent(f"no agent «{name}»; there are: {', '.join(self._specs)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def achievable(self) -> dict[str, frozenset[str]]:
        """Agent → the goals it can achieve, as ``load_goals`` wants them."""
        return {name: frozenset(spec.achieves) for name, spec in self._specs.items()}


def discover(*packages: str) -> Registry:
    """The agents of these packages (``agents`` when none is named): every module with a ``SPEC``."""
    specs = []
    for package in packages or ("agents",):
        module = importlib.import_module(package)
        for found in pkgutil.iter_modules(module.__path__):
            candidate = getattr(importlib.import_module(f"{package}.{found.name}"), "SPEC", None)
            if isinstance(candidate, AgentSpec):
                specs.append(candidate)
    return Registry(specs)
