"""A different goal file with different agents is a different application on the same engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.spec import RunRequest
from graphs.application import UnknownPackage, load_application
from services import open_runner
from settings import load_settings

KITCHEN = Path(__file__).parents[2] / "docs/examples/kitchen/goal_lattice.yml"


async def test_the_kitchen_serves_what_it_has_and_shops_for_the_rest(tmp_path: Path, sample: Path) -> None:
    settings = load_settings(data_dir=tmp_path, goal_file=KITCHEN, wiki_source=str(sample))
    request = RunRequest(intent="dinner", topics=["omelette", "pancakes"])
    async with open_runner(settings) as runner:
        assert set(runner.registry) == {"pantry", "cook", "waiter"}
        done = {event.kind: event.data async for event in runner.stream(request, "dinner")}["done"]
    assert done["report"]["served"] == ["omelette of eggs and butter", "pancakes of eggs and milk and flour"]
    ways = [step["way"] for step in done["walked"] if step["ok"]]
    assert "stocked.look[omelette]" in ways
    assert "stocked.shop[pancakes]" in ways
    assert done["outcome"]["reason"] == "no milk and no flour at home for pancakes"
    assert sorted(done["chain"][-1]) == sorted(
        ["stocked[omelette]", "stocked[pancakes]", "cooked[omelette]", "cooked[pancakes]", "served"]
    )


def test_a_package_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "goals.yml"
    file.write_text(KITCHEN.read_text().replace("docs.examples.kitchen", "nobody.here"))
    with pytest.raises(UnknownPackage, match=r"nobody\.here"):
        load_application(file)
