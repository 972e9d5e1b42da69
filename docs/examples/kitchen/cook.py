"""Cooks a dish from the ingredients that the pantry has put on the table."""

from __future__ import annotations

from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel

from agents.context import Context
from agents.spec import AgentOutput, AgentSpec, Assignment, RunView


class CookInput(BaseModel):
    """A dish and what it is made of."""

    dish: str
    ingredients: list[str]


class CookOutput(AgentOutput):
    """The dish."""

    plate: str


def build_cook(context: Context) -> Runnable[CookInput, CookOutput]:
    """The agent; it needs none of the services."""

    async def cook(request: CookInput) -> CookOutput:
        return CookOutput(plate=f"{request.dish} of {' and '.join(request.ingredients)}")

    return RunnableLambda(cook, name="cook").with_types(input_type=CookInput, output_type=CookOutput)


def _request(assignment: Assignment, run: RunView) -> CookInput:
    dish = assignment.topic or ""
    return CookInput(dish=dish, ingredients=run.results[f"stocked[{dish}]"]["ingredients"])


async def _cooked(context: Context, run: RunView, topic: str | None) -> bool:
    return bool(run.results.get(f"cooked[{topic}]", {}).get("plate"))


SPEC = AgentSpec(
    name="cook",
    description="Cooks a dish.",
    input_type=CookInput,
    output_type=CookOutput,
    build=build_cook,
    request=_request,
    achieves={"cooked": _cooked},
    explain=lambda output: output.plate,
)
