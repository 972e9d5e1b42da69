"""How often graphs/intents.py finds the intent of the messages in tests/graphs/intents.yml.

``python benchmarks/intents.py [--misses]`` prints the confusion table, precision and recall of both halves, and
milliseconds a message with the examples' vectors kept. ``--misses`` lists the wrong ones of the development half; those
held out stay unseen, or they would no longer be.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parents[1]))

from ruamel.yaml import YAML

from graphs.goals import GoalFile, load_goals
from graphs.intents import Encoder, find_intent
from models.embeddings import Embedder

ROOT = Path(__file__).parents[1]
MESSAGES = ROOT / "tests" / "graphs" / "intents.yml"

TIMED = 50

Half = Literal["dev", "held out"]


@dataclass
class Result:
    """What became of messages: (their intent, the one found) → how many."""

    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    misses: list[tuple[str, str, str]] = field(default_factory=list)
    """Message, its intent, the one found."""

    @property
    def accuracy(self) -> float:
        """Share of right ones."""
        return sum(n for (own, got), n in self.found.items() if own == got) / self.found.total()

    def table(self) -> str:
        """The confusion table: a row for each intent, a column for each one found."""
        names = list(dict.fromkeys(own for own, _ in self.found))
        lines = [f"{'':<10}" + "".join(f"{name:>10}" for name in [*names, "precision", "recall"])]
        for own in names:
            row, column = ([n for pair, n in self.found.items() if pair[at] == own] for at in (0, 1))
            hits = self.found[own, own]
            shares = [hits / max(1, sum(column)), hits / max(1, sum(row))]
            lines.append(
                f"{own:<10}"
                + "".join(f"{self.found[own, got]:>10}" for got in names)
                + "".join(f"{share:>10.2f}" for share in shares)
            )
        return "\n".join([*lines, f"accuracy {self.accuracy:.3f} of {self.found.total()}"])


def load_messages() -> dict[str, list[str]]:
    """Messages by intent."""
    loaded: dict[str, list[str]] = YAML(typ="safe").load(MESSAGES.read_text())
    return loaded


def half_of(message: str) -> Half:
    """Which half a message belongs to, by its text alone."""
    return "held out" if blake2b(message.encode()).digest()[-1] & 1 else "dev"


async def measure(goals: GoalFile, embedder: Encoder, half: Half) -> Result:
    """Find the intents of one half."""
    result = Result()
    asked = [(own, text) for own, texts in load_messages().items() for text in texts if half_of(text) == half]
    # In one batch, which is quicker; an embedder with a cache has them afterwards.
    await embedder.encode([text for _, text in asked], query=True)
    for own, message in asked:
        got = await find_intent(goals, embedder, message)
        result.found[own, got] += 1
        if got != own:
            result.misses.append((message, own, got))
    return result


async def time_messages(goals: GoalFile, embedder: Encoder) -> tuple[float, float]:
    """Median milliseconds a message that is new, and that was asked before: the latter is the rule alone."""
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(TIMED):
        message = f"Who wrote the book of {number} pages about the tides?"
        for times in took:
            begun = time.perf_counter()
            await find_intent(goals, embedder, message)
            times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(took[0]), statistics.median(took[1])


async def main(*, misses: bool) -> None:
    goals = load_goals(ROOT / "goal_lattice.yml")
    async with Embedder() as embedder:
        halves: tuple[Half, ...] = ("dev", "held out")
        for half in halves:
            result = await measure(goals, embedder, half)
            print(f"{half}\n{result.table()}")
            print()
            if misses and half == "dev":
                for message, own, got in result.misses:
                    print(f"  {own} taken for {got}: {message}")
                print()
        new, known = await time_messages(goals, embedder)
        print(f"{new:.1f} ms a message, {known:.1f} ms without its embedding (medians of {TIMED})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--misses", action="store_true")
    asyncio.run(main(misses=parser.parse_args().misses))
