"""``lumina doctor`` and the smoke test, as they are run from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from errors import LuminaError
from serving.probe import probe

ROOT = Path(__file__).parents[1]
Live = Callable[..., AbstractAsyncContextManager[str]]


async def command(*words: str, **env: str) -> tuple[int, str, str]:
    """Run a program; its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *words,
        env={**os.environ, "PYTHON": sys.executable, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def doctor(*words: str, **env: str) -> tuple[int, str, str]:
    return await command(sys.executable, str(ROOT / "cli.py"), "doctor", *words, **env)


async def test_it_says_what_is_used_and_why(tmp_path: Path) -> None:
    code, out, err = await doctor("--json", "--data-dir", str(tmp_path), LUMINA_API_KEYS="ann:secret-word")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["status"] == "ok"
    checks = found["checks"]
    assert {one["state"] for one in checks.values()} == {"ok"}
    for name, used in (("redis", "valkey"), ("qdrant", "Qdrant edge"), ("duckdb", "DuckDB"), ("llm", "SmolLM2")):
        assert used in checks[name]["used"]
    assert "REDIS_URL is not set" in checks["redis"]["why"]
    assert "384 dimensions" in checks["embeddings"]["used"]
    assert checks["access"]["used"] == "keys of ann"
    assert "secret-word" not in out


async def test_settings_that_cannot_be_read_are_json_too(tmp_path: Path) -> None:
    code, out, err = await doctor("--json", "--data-dir", str(tmp_path), WS_PORT="many")
    assert (code, err) == (1, "")
    assert "WS_PORT='many'" in json.loads(out)["checks"]["settings"]["state"]


async def test_what_does_not_work_is_named_and_the_rest_still_looked_at(tmp_path: Path) -> None:
    broken = {"REDIS_URL": "redis://:hidden@127.0.0.1:1/0", "OLLAMA_URL": "http://127.0.0.1:1"}
    code, out, err = await doctor("--json", "--data-dir", str(tmp_path), **broken)
    assert (code, err) == (1, "")
    states = {name: one["state"] for name, one in json.loads(out)["checks"].items()}
    assert "redis://127.0.0.1:1" in states["redis"]
    assert "ollama was configured" in states["llm"]
    assert {name for name, state in states.items() if state != "ok"} == {"redis", "llm"}
    assert "hidden" not in out


async def test_people_read_a_line_of_what_is_used_and_one_of_why(tmp_path: Path) -> None:
    code, out, err = await doctor("--data-dir", str(tmp_path), REDIS_URL="redis://:hidden@127.0.0.1:1/0")
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert all(line == line.rstrip() != "" for line in lines)
    heads = {line[:12].strip(): line[13:] for line in lines if line[0] != " "}
    assert heads["redis"].startswith("Redis at redis://127.0.0.1:1/0 does not answer")
    assert heads["qdrant"].startswith("ok  Qdrant edge")
    assert sum(line.startswith(" " * 13) for line in lines) == len(heads) - 1, "all but redis say why"
    assert "hidden" not in out


async def test_a_running_role_is_probed(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    async with live() as url:
        assert await asyncio.to_thread(probe, url)
        assert capsys.readouterr().out == "ok\n"
        assert await asyncio.to_thread(probe, f"{url}/metrics?ready=1")
        assert await asyncio.to_thread(probe, f"{url}/masterchat/health", as_json=True)
        with pytest.raises(LuminaError, match="not as a role"):
            await asyncio.to_thread(probe, f"{url}/docs")


@pytest.mark.parametrize(("url", "why"), [("127.0.0.1:8000", "accepted"), ("http://127.0.0.1:1", "does not answer")])
def test_an_address_that_cannot_be_probed_is_one_line(url: str, why: str) -> None:
    with pytest.raises(LuminaError, match=why):
        probe(url)


def test_a_degraded_role_is_alive_and_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    class Degraded(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"redis": "ok", "qdrant": "gone", "status": "degraded"}).encode())

        def log_message(self, *words: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Degraded) as server:
        Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert not probe(url)
        assert "qdrant: gone" in capsys.readouterr().out
        assert probe(url, alive=True)
        server.shutdown()


async def test_a_probe_starts_without_anything_heavy() -> None:
    code = (
        "import sys, cli; from serving.probe import probe\n"
        "print(sorted({'services', 'fastapi', 'redis', 'torch', 'langchain_core', 'settings'} & set(sys.modules)))"
    )
    assert (await command(sys.executable, "-c", code, PYTHONPATH=str(ROOT)))[1] == "[]\n"


@pytest.mark.slow
async def test_the_smoke_test_walks_through_every_role() -> None:
    code, out, err = await command(str(ROOT / "deploy/smoke.sh"), "--local", "--free-ports")
    assert code == 0, out + err
    rows = out.splitlines()
    assert len(rows) == 10
    assert all(" ok " in row for row in rows)
    assert "all is well" in err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="descendants are found through /proc")
async def test_an_interrupted_smoke_test_leaves_nothing_behind(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        str(ROOT / "deploy/smoke.sh"),
        *("--local", "--free-ports"),
        env={**os.environ, "PYTHON": sys.executable, "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        while not list(tmp_path.glob("*/worker/output")):  # noqa: ASYNC240  # nothing else runs
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert b"interrupted" in err
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240  # nothing else runs
    async with asyncio.timeout(30):  # a process that was killed takes a moment to go
        while [pid for pid in Path("/proc").glob("[0-9]*") if str(tmp_path) in _directory(pid)]:  # noqa: ASYNC240  # the same
            await asyncio.sleep(0.05)


def _directory(process: Path) -> str:
    try:
        return str((process / "cwd").readlink())
    except OSError:
        return ""
