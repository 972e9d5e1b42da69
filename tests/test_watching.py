"""`lumina top`: the figures of a running server in a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from commands.running import ServerError
from commands.watching import frame, watch
from settings import Settings, load_settings

Live = Callable[..., AbstractAsyncContextManager[str]]
ROOT = Path(__file__).parents[1]
WITHOUT_STORE = {"nodes": None, "edges": None, "nodes_last_hour": None}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path / "elsewhere", lumina_api_keys="ada:k1")


def drawn(figures: Any, note: str = "") -> str:
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123  # ends with the test
    console.print(frame(figures, "http://lumina", note))
    console.file.close()
    return console.export_text()


async def test_a_frame_shows_what_was_done_within_eighty_columns(
    live: Live, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    async with live(keys="ada:k1") as url:
        async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": "k1"}, timeout=60) as client:
            asked = {"message": "Who proved that it is connected?", "mode": "wiki_qa", "topics": ["Mandelbrot set"]}
            (await client.post("/masterchat/chat", json={**asked, "max_nodes": 2})).raise_for_status()
            # Both sides of the conversation are told of a moment after the answer.
            sql = "SELECT count(*) FROM events WHERE type IN ('plan.done', 'chat.message')"
            while (await client.post("/events/query", json={"sql": sql})).json()["rows"] != [[3]]:
                await asyncio.sleep(0.02)
        assert await watch(settings, url, as_json=True)
        figures = json.loads(capsys.readouterr().out)
        assert await watch(settings, url, once=True)
        assert "orchestrator" in capsys.readouterr().out
    text = drawn(figures)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text, "nothing is cut off"
    assert re.search(r"crawl +1 +0 ", text)
    assert re.search(r"nodes +[1-9]", text)
    assert re.search(r"conversations +1 ", text)
    assert re.search(r"planner_log/v1 .*masterchat", text)
    assert figures["http"]["requests"] >= 1
    assert figures["http"]["failed"] == 0


async def test_a_role_without_the_event_store_has_dashes(live: Live, settings: Settings, capsys: Any) -> None:
    async with live(keys="ada:k1") as url:
        await watch(settings, url, as_json=True)
    figures = json.loads(capsys.readouterr().out)
    text = drawn({**figures, "graph": WITHOUT_STORE, "conversations": None, "planner": None}, "no answer (gone)")
    assert re.search(r"nodes +–", text)
    assert "no answer (gone)" in text


async def test_without_a_server_it_says_how_to_start_one(settings: Settings) -> None:
    with pytest.raises(ServerError, match=r"no server runs on .*`lumina serve`"):
        await watch(settings)


async def test_a_refusal_is_one_line(live: Live, settings: Settings) -> None:
    async with live(keys="ada:another") as url:
        with pytest.raises(ServerError, match="key") as caught:
            await watch(settings, url, once=True)
    assert "\n" not in str(caught.value)


async def test_on_a_terminal_it_goes_on_until_it_is_interrupted(live: Live, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    seen = bytearray()
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, lambda: seen.extend(os.read(ours, 65536)))
    try:
        async with live() as url:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(ROOT / "cli.py"), "top", "--url", url, "--data-dir", str(tmp_path)),
                stdin=theirs, stdout=theirs, stderr=theirs,
                env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "50"},
            )  # fmt: skip
            while seen.count(b"Lumina") < 2:  # a second frame
                await asyncio.sleep(0.05)
        while b"no answer" not in seen:  # the server has gone, and it is waited for
            await asyncio.sleep(0.05)
        process.send_signal(2)
        assert await process.wait() == 130
        while b"\x1b[?1049l" not in seen:  # the screen that was there before is back
            await asyncio.sleep(0.05)
    finally:
        loop.remove_reader(ours)
        os.close(ours)
        os.close(theirs)
