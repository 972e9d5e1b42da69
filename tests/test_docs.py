"""Every command and every piece of Python in the documentation is run, or says above itself why it is not.

The blocks of a page run from top to bottom against one live server on embedded engines, with a stand-in for the model:
``bash`` and ``console`` in a shell where ``lumina`` is this checkout's, ``python`` in this process. What a ``console``
block shows is compared with what is printed; ``…`` stands for anything.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph.graph import START, MessagesState, StateGraph

from server import address_file
from settings import Settings, load_settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HERE = "127.0.0.1:8000"
WARM = ROOT / "tests" / "warm_lumina.py"
REDIS = "redis://localhost:6379"

RUN_ELSEWHERE = {
    ("docs/client.md", "python"): "tests/client/test_docs.py",
    ("docs/operations.md", "bash"): "tests/test_operations.py",
    ("docs/planner.md", "console"): "tests/graphs/test_explaining.py",
    ("docs/queries.md", "sql"): "tests/memory/test_queries.py",
}
"""Blocks that have a test of their own, which knows what has to come out."""

WITHOUT_SERVER = {"docs/write_an_agent.md"}
"""Pages whose commands open the engines themselves."""

SEEN = {
    "README.md": ["Douady", "event: plan", "queued"],
    "docs/index.md": ["Douady", "node.add", "redis"],
    "docs/command_line.md": ["Koch", "summarised[Julia set]", "graph.graphml"],
    "docs/concepts.md": ["crawl"],
    "docs/configuration.md": ["LLM_PROVIDER"],
    "docs/event_streams.md": ["plan.start", "node.add", "graph_stream="],
    "docs/http.md": ["Douady", "Ada", "202", "Mandelbrot_set", "lumina_"],
    "docs/langserve.md": ["Douady", "Koch"],
    "docs/openai.md": ["Douady", "lumina-qa", "Koch"],
    "docs/queries.md": ["count", "datetime.date"],
    "docs/write_an_agent.md": ["pancakes", "omelette"],
}
"""What a reader has to find in what the blocks of a page print."""

DATA = {"yaml", "json", "mermaid", "text", "toml", "ini"}
"""Languages of blocks that are looked at and not run."""

Live = Callable[..., AbstractAsyncContextManager[str]]


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    why_not: str

    @property
    def runs(self) -> bool:
        return not self.why_not and self.language not in DATA and (self.page, self.language) not in RUN_ELSEWHERE

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    opened: tuple[int, str, str] | None = None
    for number, line in enumerate(lines):
        fence = re.match(r"^( *)(```+)(.*)$", line)
        if opened is None and fence:
            before = lines[number - 1] if number else ""
            reason = re.fullmatch(r" *<!-- not run: (\S.*) -->", before)
            opened = (number + 1, fence[3].strip(), reason[1] if reason else "")
        elif opened and fence and not fence[3].strip():
            first, language, why_not = opened
            text = "\n".join(lines[first:number]) + "\n"
            found.append(Block(str(path.relative_to(ROOT)), first, language, text, why_not))
            opened = None
    assert opened is None, f"{path}: a block that begins at line {opened and opened[0]} does not end"
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUNNING = sorted({block.page for block in BLOCKS if block.runs})


def test_every_block_is_run_or_says_why_not() -> None:
    known = DATA | {"bash", "console", "python"}
    for block in BLOCKS:
        elsewhere = (block.page, block.language) in RUN_ELSEWHERE
        assert block.language in known or elsewhere or block.why_not, (
            f"{block}: say which language it is ({', '.join(sorted(known))}), "
            "or why it is not run: <!-- not run: reason --> in the line above"
        )
        assert not (block.why_not and block.language in DATA), f"{block}: nobody would run {block.language}"


def test_no_reason_stands_without_a_block() -> None:
    for page in PAGES:
        reasons = len(re.findall(r"^ *<!-- not run", page.read_text(encoding="utf-8"), re.MULTILINE))
        assert reasons == sum(bool(block.why_not) for block in blocks_of(page)), page


@pytest.mark.parametrize(("place", "test"), RUN_ELSEWHERE.items(), ids=str)
def test_blocks_that_run_elsewhere_are_read_there(place: tuple[str, str], test: str) -> None:
    page, language = place
    assert any((block.page, block.language) == place for block in BLOCKS), "no such block is left"
    text = (ROOT / test).read_text()
    assert Path(page).name in text
    assert f"```{language}" in text


def test_what_has_to_be_seen_is_asked_of_pages_that_run() -> None:
    assert set(SEEN) == set(RUNNING)


def test_the_table_of_settings_is_that_of_the_settings_and_the_example() -> None:
    table = _hook("settings_table")
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    made = table.settings_table(Settings.model_fields, example)
    assert page == table.filled(page, made), "run python docs/hooks/settings_table.py"
    assert {name.lower() for name in re.findall(r"^\| `([A-Z_]+)`", made, re.MULTILINE)} == set(Settings.model_fields)
    assert not re.findall(r"^.*\|  \|$", made, re.MULTILINE), "a variable has no text above it in .env.example"


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of a process that runs ``lumina`` commands without importing everything each time."""
    path = tmp_path_factory.mktemp("warm") / "s"
    with subprocess.Popen([sys.executable, WARM, path, "--serve"]) as process:
        try:
            while not path.exists():
                assert process.poll() is None
                time.sleep(0.05)
            yield str(path)
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", RUNNING)
async def test_the_blocks_of_a_page_run(
    page: str, warm: str, live: Live, tmp_path: Path, sample: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(tmp_path, sample, warm)
    monkeypatch.chdir(shell.folder)
    async with _served(page, live, tmp_path) as url:
        shell.replaced = {HERE: url.removeprefix("http://"), REDIS: redis_url}
        names: dict[str, Any] = {"builder": _some_graph()}
        said = ""
        for block in BLOCKS:
            if block.page == page and block.runs:
                said += await _run(block, shell, names)
    for words in SEEN[page]:
        assert words in said, said[-3_000:]


async def _run(block: Block, shell: Shell, names: dict[str, Any]) -> str:
    if block.language == "python":
        return await _python(block, shell, names)
    return await (shell.run(block) if block.language == "bash" else shell.compare(block))


@asynccontextmanager
async def _served(page: str, live: Live, tmp_path: Path) -> AsyncIterator[str]:
    """A live server, which ``lumina`` finds in the data folder."""
    if page in WITHOUT_SERVER:
        yield "http://127.0.0.1:9"
        return
    async with live(answers=["Hello, Ada."]) as url:
        announced = address_file(load_settings(data_dir=tmp_path / "data").data_dir)
        announced.write_text(json.dumps({"url": url, "pid": os.getpid()}))
        await _have_an_event(url)
        yield url


async def _have_an_event(url: str) -> None:
    """As at a server that somebody has used before."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        (await client.post("/nodes", json={"title": "Benoit Mandelbrot"})).raise_for_status()
        asked = {"sql": "SELECT count(*) FROM events"}
        while not (await client.post("/events/query", json=asked)).json()["rows"][0][0]:
            await asyncio.sleep(0.02)


class Shell:
    """A folder like the checkout, in which ``lumina`` is this checkout's command."""

    def __init__(self, tmp_path: Path, sample: Path, warm: str) -> None:
        self.replaced: dict[str, str] = {}
        self.folder = tmp_path / "folder"
        programs = tmp_path / "bin"
        for folder in (self.folder, programs):
            folder.mkdir()
        for name in ("docs", "goal_lattice.yml"):
            (self.folder / name).symlink_to(ROOT / name)
        lumina = programs / "lumina"
        lumina.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{WARM}" "{warm}" "$@"\n')
        lumina.chmod(0o755)
        (tmp_path / ".curlrc").write_text("fail-with-body\nconnect-timeout = 20\n")
        unset = {name.upper() for name in Settings.model_fields}
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in unset},
            "PATH": f"{programs}:{os.environ['PATH']}",
            "CURL_HOME": str(tmp_path),
            "DATA_DIR": str(tmp_path / "data"),
            "WIKI_SOURCE": str(sample),
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }

    def text_of(self, block: Block) -> str:
        text = block.text.replace(".venv/bin/lumina", "lumina")
        for written, real in self.replaced.items():
            text = text.replace(written, real)
        return text

    async def run(self, block: Block) -> str:
        code, said = await self._execute(self.text_of(block))
        assert code == 0, f"{block} ended with {code}:\n{said[-3_000:]}"
        assert said.strip(), f"{block} says nothing"
        return said

    async def compare(self, block: Block) -> str:
        """Run each command after a ``$``, and look for the lines below it."""
        everything = ""
        for part in re.split(r"^\$ ", self.text_of(block), flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            _, said = await self._execute(command)
            pattern = ".*".join(map(re.escape, shown.strip().split("…")))
            assert re.search(pattern, said, re.DOTALL), f"{block}: {command}\nsays\n{said}\nand not\n{shown}"
            everything += said
        return everything

    async def _execute(self, script: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            "bash",
            *("-euo", "pipefail", "-c", script),
            cwd=self.folder,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, said.decode()


async def _python(block: Block, shell: Shell, names: dict[str, Any]) -> str:
    """Run it with ``await`` at the top level; what blocks runs in a thread, for the server is in this one."""
    code = compile(shell.text_of(block), str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, names)
        else:
            await asyncio.to_thread(exec, code, names)
    return said.getvalue()


def _some_graph() -> Any:
    """What a reader of the README has already."""

    def say_nothing(state: MessagesState) -> dict[str, Any]:
        return {"messages": []}

    return StateGraph(MessagesState).add_node("say", say_nothing).add_edge(START, "say")


def _hook(name: str) -> Any:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(name, ROOT / "docs" / "hooks" / f"{name}.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
