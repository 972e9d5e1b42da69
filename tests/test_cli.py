"""The command line, in processes of its own, as a user would run it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from commands.options import carry_out
from masterchat import MasterChat

ROOT = Path(__file__).parents[1]


async def lumina(*arguments: str, data: Path, **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "cli.py"),
        *arguments,
        cwd=data.parent,
        env={**os.environ, "DATA_DIR": str(data), "PYTHONPATH": str(ROOT), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def test_help_lists_the_commands(data: Path) -> None:
    code, out, _ = await lumina("--help", data=data)
    assert code == 0
    for command in (
        "demo",
        "ask",
        "crawl",
        "plan",
        "goals",
        "sql",
        "serve",
        "worker",
        "tasks",
        "prune",
        "eval",
        "doctor",
    ):
        assert command in out


async def test_the_help_fills_the_lines(data: Path) -> None:
    code, out, _ = await lumina("console", "--help", data=data, COLUMNS="80", NO_COLOR="1")
    assert code == 0
    assert "and stays up while the server restarts." in " ".join(out.split())
    paragraph = out[out.index("`lumina serve`") : out.index("restarts.")].splitlines()
    assert len(paragraph) == 2, paragraph


async def test_the_goals_are_checked_and_drawn(data: Path) -> None:
    code, out, err = await lumina("goals", data=data)
    assert code == 0
    assert out.startswith("flowchart")
    assert "no problems" in err


async def test_a_broken_goal_file_stops_the_start_with_its_line(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "goals.yml"
    broken.write_text((ROOT / "goal_lattice.yml").read_text().replace("agent: crawl", "agent: crwal"))
    line = next(n for n, text in enumerate(broken.read_text().splitlines(), 1) if "crwal" in text)
    code, _, err = await lumina("ask", "x", data=data, GOAL_FILE=str(broken))
    assert code == 1
    assert f"goals.yml:{line}: unknown agent «crwal»" in err
    assert not list(tmp_path.glob("data*"))  # noqa: ASYNC240  # nothing else runs


async def test_an_unknown_topic_suggests_and_exits_with_1(data: Path) -> None:
    code, _, err = await lumina("demo", "--topic", "Mandelbort set", data=data)
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "nearest titles: Mandelbrot set" in err


async def test_a_bad_setting_is_one_line(data: Path) -> None:
    code, _, err = await lumina("ask", "x", data=data, WIKI_SOURCE="ftp://example.org")
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "accepted: the address of a MediaWiki" in err


async def test_a_plan_is_shown_without_running_it(data: Path) -> None:
    asked = ("plan", "Who was Julia?", "--mode", "wiki_qa", "--topic", "Julia set", "--json")
    code, out, _ = await lumina(*asked, data=data)
    assert code == 0
    plan = json.loads(out)
    assert [step["way"] for step in plan["run"]] == ["crawled.links[Julia set]"]
    assert plan["plan"][-1]["goal"] == "answer_reported"


async def test_others_can_only_be_served_with_keys(data: Path) -> None:
    code, _, err = await lumina("serve", "--host", "0.0.0.0", data=data)
    assert code == 1
    assert "LUMINA_API_KEYS" in err


async def test_a_worker_says_at_the_start_what_it_cannot_do(data: Path) -> None:
    code, _, err = await lumina("worker", "--kinds", "ask", data=data)
    assert code == 1
    assert "QDRANT_URL" in err


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (("worker", "--kinds", "ask"), "worker"),
        (("serve", "--host", "0.0.0.0"), "serve"),
        (("serve", "--role", "indexer"), "serve-indexer"),
    ],
)
async def test_whatever_stays_logs_to_a_file_of_its_own(data: Path, command: tuple[str, ...], file: str) -> None:
    code, _, _ = await lumina(*command, data=data)
    assert code == 1, "each lacks something, and ends after its logs were opened"
    assert [path.name for path in (data / "logs").glob("*.log")] == [f"{file}.log"]


async def test_a_server_whose_data_dir_is_no_folder_says_so_in_one_line(data: Path) -> None:
    data.touch()  # noqa: ASYNC240  # nothing else runs
    code, _, err = await lumina("worker", data=data)
    assert code == 1
    assert err.startswith(f"lumina: DATA_DIR={data}: File exists; accepted:")
    assert len(err.strip().splitlines()) == 1


def test_a_thread_that_hangs_does_not_hold_up_the_end_of_a_command() -> None:
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def look_up() -> None:
        begun.set()
        release.wait(30)
        ended.set()

    async def work() -> bool:
        hanging = asyncio.create_task(asyncio.to_thread(look_up))
        await asyncio.to_thread(begun.wait)
        return not hanging.done()

    carry_out(work())
    assert not ended.is_set()
    release.set()
    assert ended.wait(30)


def children(pid: int) -> set[int]:
    """Process ids of every living descendant."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(folder.name)] = int(fields[1])
    found: set[int] = set()
    front = {pid}
    while front:
        front = {child for child, parent in parents.items() if parent in front} - found
        found |= front
    return found


async def test_tasks_are_queued_looked_at_and_cancelled_without_a_server(data: Path) -> None:
    code, out, err = await lumina("tasks", "submit", "--topic", "Julia set", "--key", "k", "--json", data=data)
    assert (code, err) == (0, "")
    task = json.loads(out)
    assert (task["kind"], task["status"], task["payload"]["topics"]) == ("crawl", "queued", ["Julia set"])
    code, out, _ = await lumina("tasks", "list", data=data)
    assert task["id"] in out
    assert "queued" in out
    code, out, _ = await lumina("tasks", "cancel", task["id"], data=data)
    assert (code, "cancelled" in out) == (0, True)
    code, _, err = await lumina("tasks", "show", "nobody", data=data)
    assert (code, len(err.splitlines())) == (1, 1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="descendants are found through /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_server_and_everything_that_it_started(
    data: Path, unused_tcp_port: int, number: signal.Signals
) -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "cli.py"),
        "serve",
        "--port",
        str(unused_tcp_port),
        cwd=data.parent,
        env={**os.environ, "DATA_DIR": str(data), "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout is not None
    assert b"Lumina serves on" in await asyncio.wait_for(server.stdout.readline(), 60)
    async with MasterChat(f"http://127.0.0.1:{unused_tcp_port}") as client:
        assert (await client.health())["status"] == "ok"
        stream = await client.chat(message="Hello there!", mode="chat")
        assert await stream.text()
    code, out, _ = await lumina("sql", "SELECT count(*) AS n FROM events", "--json", data=data)
    assert code == 0
    assert json.loads(out)["columns"] == ["n"]
    started = children(server.pid)
    assert len(started) >= 2, "an embedded Redis and a llama.cpp"
    server.send_signal(number)
    assert await asyncio.wait_for(server.wait(), 60) == 0
    async with asyncio.timeout(10):  # a helper that ends when its pipe does may be a moment behind the server
        while [pid for pid in started if Path(f"/proc/{pid}").exists()]:  # noqa: ASYNC240  # nothing else runs
            await asyncio.sleep(0.02)


async def test_passages_over_a_quota_are_pruned(data: Path) -> None:
    code, _, err = await lumina("crawl", "Koch snowflake", "--max-nodes", "2", "--json", data=data)
    assert code == 0, err
    code, out, err = await lumina("prune", "--max-passages", "1", data=data)
    assert code == 0, err
    assert "over the quota" in out
    assert "passages of 2 pages of local went" in out


async def test_a_prune_that_is_not_accepted_says_what_is(data: Path) -> None:
    code, _, err = await lumina("prune", "--older-than", "soon", data=data)
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "older_than: 'soon' is no age; accepted are minutes, hours, days and weeks: 90m, 12h, 30d, 8w" in err


async def test_a_topic_without_a_name_is_refused_in_one_line(data: Path) -> None:
    code, _, err = await lumina("crawl", "", data=data)
    assert (code, err) == (1, "lumina: a topic is empty; each is the title of an article\n")
