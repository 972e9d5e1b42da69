"""Plain conversation: the latest turns and what was said before, within a bound, and the model's reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, trim_messages
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, Field

from agents.asking import Said, ask
from agents.context import Context
from agents.prompts import CHAT
from memory.conversations import SimilarMessage, Turn

REPLY_TOKENS = 160
RECALLED_MESSAGES = 3
CANDIDATES = 12
"""Messages among which the most similar are looked for, beside those that the model sees anyway."""
LATEST_TURNS = 20
EARLIER_TOKENS = 1_000
"""The latest turns take at most so many tokens: the embedded model reads 200 a second."""
RECALLED_CHARS = 500
"""So much of a recalled message is shown to the model."""


class Recalled(BaseModel):
    """An earlier message that the model was given."""

    id: str
    conversation_id: str
    similarity: float = Field(ge=-1, le=1, description="Cosine of its vector and that of what was said now.")


async def reply(
    context: Context,
    message: str,
    config: RunnableConfig,
    *,
    owner: str,
    conversation_id: str | None,
    heard: Callable[[str], None],
) -> tuple[Said, list[Recalled]]:
    """What the model says to a message, and which earlier messages it was given beside the latest turns.

    Args:
        context: The open services.
        message: What is said; in its conversation it is the latest turn, if it is stored already.
        config: Of the run that asks.
        owner: Whose memory.
        conversation_id: Whose latest turns the model sees; None for none.
        heard: Gets the pieces of the reply as they come.

    Raises:
        NoModelAnswers: no provider answers.
        BudgetExceeded: nothing but the budget stands in the way.
    """
    turns: list[Turn] = []
    if conversation_id:
        turns = await context.conversations.turns(owner, conversation_id, last=LATEST_TURNS)
    said = turns.pop() if turns and turns[-1].role == "user" and turns[-1].content == message else None
    shown = _within_bound(turns)
    recalled = await _recall(context, owner, message, [*shown, said] if said else shown)
    messages = CHAT.format_messages(
        recalled="".join(f"\nEarlier it was said: {one.text[:RECALLED_CHARS]}" for one, _ in recalled),
        earlier=[_as_message(turn) for turn in shown],
        message=message,
    )
    answer = await ask(context, messages, config, max_tokens=REPLY_TOKENS, agent="qa", owner=owner, heard=heard)
    return answer, [
        Recalled(id=one.turn_id, conversation_id=one.conversation_id, similarity=round(similarity, 4))
        for one, similarity in recalled
    ]


async def _recall(
    context: Context, owner: str, message: str, shown: Sequence[Turn]
) -> list[tuple[SimilarMessage, float]]:
    """The earlier messages most like this one that the model does not see anyway, best first, with their cosines."""
    seen = {turn.id for turn in shown}
    found = await context.conversations.recall(owner, message, CANDIDATES + len(seen))
    candidates = [one for one in found if one.turn_id not in seen][:CANDIDATES]
    if not candidates:
        return []
    asked = (await context.embedder.encode([message], query=True))[0]
    known = await context.embedder.encode([one.text for one in candidates], urgent=True)
    cosines = [max(-1.0, min(1.0, float(cosine))) for cosine in known @ asked]
    ranked = sorted(zip(candidates, cosines, strict=True), key=lambda pair: (-pair[1], pair[0].turn_id))
    return ranked[:RECALLED_MESSAGES]


def _within_bound(turns: Sequence[Turn]) -> list[Turn]:
    """The latest turns that fit into ``EARLIER_TOKENS``, beginning with what a user said."""
    kept = trim_messages(
        [_as_message(turn) for turn in turns],
        max_tokens=EARLIER_TOKENS,
        token_counter=_token_bound,
        strategy="last",
        start_on="human",
    )
    return list(turns[len(turns) - len(kept) :])


def _as_message(turn: Turn) -> AnyMessage:
    kind = AIMessage if turn.role == "assistant" else HumanMessage
    return kind(turn.content, id=turn.id)


def _token_bound(messages: list[BaseMessage]) -> int:
    """About how many tokens: three bytes each, a cautious rule for any script, and some around each message."""
    return sum(len(str(message.text).encode()) // 3 + 4 for message in messages)
