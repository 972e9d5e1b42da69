"""What a token of a paid model costs: a table that the user may extend, in code or by a file.

A price file is JSON: ``{"my-model": {"input_usd": 0.5, "output_usd": 1.5}}``, US dollars per million tokens.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import LuminaError

NANO_USD = 1_000_000_000
"""Nano-dollars in a dollar. Money is counted in whole nano-dollars: a cheap token costs about 40 of them, and a
double in Redis' Lua still holds nine million dollars exactly."""

_DATED = re.compile(r"-(latest|\d{4}-\d{2}-\d{2}|\d{4}|\d{3})$")
"""Endings that name a release of a model, not another model: ``-latest``, ``-2024-07-18``, ``-2411``."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    input_usd: float
    output_usd: float

    def cost_nano_usd(self, *, input_tokens: int, output_tokens: int) -> int:
        """Nano-dollars for one call, rounded up to a whole one."""
        return -int(-(input_tokens * self.input_usd + output_tokens * self.output_usd) * (NANO_USD // 1_000_000) // 1)


class InvalidPrices(LuminaError):
    """A price file that cannot be read."""


FREE = Price(0.0, 0.0)
CAREFUL = Price(15.0, 75.0)
"""Assumed for a paid model that no table names: as dear as the dearest common models, so that a budget ends too early
rather than too late."""

LISTED: Mapping[str, Price] = {
    "gpt-4o": Price(2.50, 10.00),
    "gpt-4o-mini": Price(0.15, 0.60),
    "gpt-4.1": Price(2.00, 8.00),
    "gpt-4.1-mini": Price(0.40, 1.60),
    "gpt-4.1-nano": Price(0.10, 0.40),
    "gpt-5": Price(1.25, 10.00),
    "gpt-5-mini": Price(0.25, 2.00),
    "gpt-5-nano": Price(0.05, 0.40),
    "o3": Price(2.00, 8.00),
    "o4-mini": Price(1.10, 4.40),
    "mistral-large": Price(2.00, 6.00),
    "mistral-medium": Price(0.40, 2.00),
    "mistral-small": Price(0.20, 0.60),
    "open-mistral-nemo": Price(0.15, 0.15),
    "ministral-8b": Price(0.10, 0.10),
    "ministral-3b": Price(0.04, 0.04),
    "codestral": Price(0.30, 0.90),
}
"""List prices as their vendors once published them; where a price fell, the higher one stays. Prices move: whoever
pays should pass their own."""


class PriceTable:
    """Finds the price of a model; the user's entries go before the listed ones."""

    def __init__(self, extra: Mapping[str, Price] | None = None, *, unknown: Price = CAREFUL) -> None:
        self._own = dict(extra or {})
        self._prices = {**LISTED, **self._own}
        self._unknown = unknown

    def names(self, model_id: str) -> bool:
        """Whether the user gave this very model a price: then it is paid, wherever it runs."""
        return model_id in self._own

    def __getitem__(self, model_id: str) -> Price:
        """The price of a paid model; the careful default where the table does not name it."""
        return self._find(model_id) or self._unknown

    def _find(self, model_id: str) -> Price | None:
        return self._prices.get(model_id) or self._prices.get(_DATED.sub("", model_id))


def read_prices(file: Path) -> dict[str, Price]:
    """The entries of a price file.

    Raises:
        InvalidPrices: naming the file, the model and what is accepted.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidPrices(f"the price file {file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidPrices(f"the price file {file} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidPrices(f"the price file {file} holds {type(found).__name__}; accepted: {_ACCEPTED}")
    return {model: _price(file, model, entry) for model, entry in found.items()}


_ACCEPTED = '{"model": {"input_usd": 0.5, "output_usd": 1.5}}, in dollars per million tokens'


def _price(file: Path, model: str, entry: Any) -> Price:
    amounts = entry if isinstance(entry, dict) else {}
    if set(amounts) != {"input_usd", "output_usd"} or not all(map(_is_amount, amounts.values())):
        raise InvalidPrices(f"the price file {file}: {model}: {json.dumps(entry):.80}; accepted: {_ACCEPTED}")
    return Price(**amounts)


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
