"""What ``lumina plan --replay`` and ``lumina goals --draw`` do with the log of a real run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from agents.spec import RunRequest
from commands.planning import NotDrawable, UnknownTask, draw_goals, replay_task
from graphs.planner import ReplayDiffers
from graphs.runs import Runner
from settings import load_settings

ROOT = Path(__file__).parents[1]
Lumina = Callable[..., AbstractAsyncContextManager[Runner]]


async def test_a_task_is_replayed_and_drawn_from_its_log(
    lumina: Lumina, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with lumina() as runner:
        async for _ in runner.stream(RunRequest(intent="chat", message="Hello!"), "it's"):
            pass
    settings = load_settings(data_dir=tmp_path / "data")
    assert await replay_task(settings, "it's")
    assert "round 1: run replied.chat\nround 2: done\n2 decisions" in capsys.readouterr().out
    with pytest.raises(UnknownTask, match="nothing of task «other»"):
        await replay_task(settings, "other")
    changed = tmp_path / "goals.yml"
    changed.write_text((ROOT / "goal_lattice.yml").read_text().replace("id: chat\n", "id: talk\n"))
    with pytest.raises(ReplayDiffers, match=r"round 1: .*replied\.talk"):
        await replay_task(load_settings(data_dir=tmp_path / "data", goal_file=changed), "it's")
    picture = tmp_path / "walk.svg"
    assert await draw_goals(settings, settings.goal_file, topics=[], states=False, file=picture, task_id="it's")
    assert "+replied" in picture.read_text()
    ElementTree.fromstring(picture.read_text())
    with pytest.raises(NotDrawable, match=r"\.svg or an \.mmd"):
        await draw_goals(settings, settings.goal_file, topics=[], states=False, file=tmp_path / "x.png", task_id=None)
