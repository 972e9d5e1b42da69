"""What whoever asked must know of how a run ended, beside whether it did."""

from __future__ import annotations

from agents.context import Context
from agents.spec import Usage


async def notices(context: Context, task_id: str, usage: Usage) -> list[str]:
    """One clear sentence for each thing that was not as it should be."""
    if not usage.refused:
        return []
    budget = context.budget
    return [budget_sentence(budget.limit_usd, await budget.spent(task_id), usage)]


def budget_sentence(limit_usd: float, spent_usd: float, usage: Usage) -> str:
    """That the budget refused paid calls, and what answered instead.

    A call is refused when what it may cost at most does not fit any more, so less than the limit may be spent.
    """
    calls = "1 paid call was" if usage.refused == 1 else f"{usage.refused} paid calls were"
    instead = f"{usage.stand_in} answered" if usage.stand_in else "no local model is there, so what was read is quoted"
    limit = f"{limit_usd:.6f}".rstrip("0").rstrip(".")
    return f"the budget of {limit} USD is used up ({spent_usd:.4f} USD spent, {calls} refused): {instead}"
