"""Serves what was cooked. A failed way is simply not taken again: the waiter also decides on failures."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel, Field

from agents.context import Context
from agents.spec import AgentOutput, AgentSpec, Assignment, FailureDecision, RunView


class WaiterInput(BaseModel):
    """The plates to serve, or the failures to decide upon."""

    plates: list[str] = Field(default_factory=list)
    failures: list[dict[str, Any]] = Field(default_factory=list)


class WaiterOutput(AgentOutput):
    """What was served."""

    report: dict[str, Any] = Field(default_factory=dict)
    decisions: list[FailureDecision] = Field(default_factory=list)


def build_waiter(context: Context) -> Runnable[WaiterInput, WaiterOutput]:
    """The agent; it needs none of the services."""

    async def serve(request: WaiterInput) -> WaiterOutput:
        decisions = [
            FailureDecision(way=failure["way"], action="rule_out", reason=failure["error"])
            for failure in request.failures
        ]
        return WaiterOutput(report={"served": request.plates} if request.plates else {}, decisions=decisions)

    return RunnableLambda(serve, name="waiter").with_types(input_type=WaiterInput, output_type=WaiterOutput)


def _request(assignment: Assignment, run: RunView) -> WaiterInput:
    return WaiterInput(plates=[result["plate"] for goal, result in run.results.items() if goal.startswith("cooked[")])


async def _served(context: Context, run: RunView, topic: str | None) -> bool:
    return bool(run.results.get("served", {}).get("report"))


SPEC = AgentSpec(
    name="waiter",
    description="Serves the dinner, and decides on failures.",
    input_type=WaiterInput,
    output_type=WaiterOutput,
    build=build_waiter,
    request=_request,
    achieves={"served": _served},
    on_failure=lambda run: WaiterInput(failures=[dict(failure) for failure in run.failures]),
    explain=lambda output: "served" if output.report else "another way, then",
)
