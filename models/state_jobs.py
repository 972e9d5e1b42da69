"""Token states that somebody waits for, until the embedding model's thread computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from errors import LuminaError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Asked = TypeVar("Asked")
States = TypeVar("States")


@dataclass(eq=False, slots=True)
class StatesJob(Generic[Asked, States]):
    """What one caller asks for, computed in one go."""

    asked: Sequence[Asked]
    what: str
    """Their name in an error: pairs, texts."""
    compute: Callable[[SentenceTransformer, Sequence[Asked], bool], list[States]]
    """Takes the model, what is asked, and whether to compute in bfloat16."""
    done: Future[list[States]] = field(default_factory=Future)

    def run(self, model: SentenceTransformer, bfloat16: bool) -> None:
        """Compute, and hand the states over."""
        states = self.compute(model, self.asked, bfloat16)
        if self.done.set_running_or_notify_cancel():
            self.done.set_result(states)

    def fail(self, error: LuminaError) -> None:
        """Tell the caller."""
        if not self.done.done() and self.done.set_running_or_notify_cancel():
            self.done.set_exception(error)
