"""Looks whether the ingredients of a dish are at home, or buys them."""

from __future__ import annotations

from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel, Field

from agents.context import Context
from agents.spec import AgentOutput, AgentSpec, Assignment, RunView
from errors import LuminaError

RECIPES = {"omelette": ["eggs", "butter"], "pancakes": ["eggs", "milk", "flour"], "salad": ["lettuce", "oil"]}
AT_HOME = {"eggs", "butter", "lettuce", "oil"}


class NotAtHome(LuminaError):
    """An ingredient is missing, or nobody knows the dish."""


class PantryInput(BaseModel):
    """What is to be cooked."""

    dish: str
    shop: bool = Field(False, description="Buy what is missing.")


class PantryOutput(AgentOutput):
    """What is on the table."""

    ingredients: list[str]
    bought: list[str] = Field(default_factory=list)


def build_pantry(context: Context) -> Runnable[PantryInput, PantryOutput]:
    """The agent; it needs none of the services."""

    async def look(request: PantryInput) -> PantryOutput:
        if request.dish not in RECIPES:
            raise NotAtHome(f"nobody here can cook «{request.dish}»; there are: {', '.join(RECIPES)}")
        needed = RECIPES[request.dish]
        missing = [name for name in needed if name not in AT_HOME]
        if missing and not request.shop:
            raise NotAtHome(f"no {' and no '.join(missing)} at home for {request.dish}")
        return PantryOutput(ingredients=needed, bought=missing)

    return RunnableLambda(look, name="pantry").with_types(input_type=PantryInput, output_type=PantryOutput)


def _request(assignment: Assignment, run: RunView) -> PantryInput:
    return PantryInput(dish=assignment.topic or "", **assignment.params)


async def _stocked(context: Context, run: RunView, topic: str | None) -> bool:
    return bool(run.results.get(f"stocked[{topic}]", {}).get("ingredients"))


SPEC = AgentSpec(
    name="pantry",
    description="Looks for ingredients, or buys them.",
    input_type=PantryInput,
    output_type=PantryOutput,
    build=build_pantry,
    request=_request,
    achieves={"stocked": _stocked},
    explain=lambda output: "bought " + ", ".join(output.bought) if output.bought else "all at home",
)
