"""The price table and the file that extends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.prices import CAREFUL, InvalidPrices, Price, PriceTable, read_prices


def test_a_file_adds_models_and_changes_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text('{"my-model": {"input_usd": 0.5, "output_usd": 1.5}, "gpt-4o": {"input_usd": 1, "output_usd": 2}}')
    table = PriceTable(read_prices(file))
    assert table["my-model"] == Price(0.5, 1.5)
    assert table["gpt-4o-2024-07-18"] == Price(1, 2)
    assert table["gpt-4o-mini"] == PriceTable()["gpt-4o-mini"]
    assert table["never-heard-of"] == CAREFUL
    assert table.names("my-model")
    assert not table.names("gpt-4o-mini")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[", "not JSON"),
        ("[]", "holds list"),
        ('{"m": 3}', "m: 3"),
        ('{"m": {"input_usd": 1}}', '"input_usd": 1'),
        ('{"m": {"input_usd": -1, "output_usd": 1}}', "-1"),
        ('{"m": {"input_usd": NaN, "output_usd": 1}}', "NaN"),
        ('{"m": {"input_usd": true, "output_usd": 1}}', "true"),
    ],
)
def test_what_a_file_gets_wrong_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "prices.json"
    file.write_text(text)
    with pytest.raises(InvalidPrices, match=r"prices\.json") as refused:
        read_prices(file)
    assert told in str(refused.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidPrices, match="No such file"):
        read_prices(tmp_path / "prices.json")
