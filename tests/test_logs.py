"""What a log line says, and what it never says."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from logs import RETENTION, open_logs


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    logging.captureWarnings(False)  # whoever came before may have left it on
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logger.remove()
    logger.add(sys.stderr)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def told(**settings: Any) -> io.StringIO:
    out: io.StringIO = settings.pop("stream", None) or io.StringIO()
    open_logs(stream=out, **{"level": "INFO", **settings})
    return out


def failing() -> None:
    token = "hush-hush"
    raise ValueError(f"no {len(token)} of {{these}}")


def test_a_line_of_text_says_where_it_belongs() -> None:
    out = told(times=False)
    with logger.contextualize(task_id="t1", owner="ada"):
        logger.info("two\nlines of {}", "{braces} <red>")
    logger.debug("not shown")
    assert out.getvalue() == "INFO     two lines of {braces} <red> task_id=t1 owner=ada\n"


def test_an_error_is_one_line_with_its_place_and_no_values() -> None:
    out = told(times=False)
    try:
        failing()
    except ValueError:
        logger.exception("it broke")
    [line] = out.getvalue().splitlines()
    assert line.startswith("ERROR    it broke – ValueError: no 9 of {these} at test_logs.py:")
    assert line.endswith("in failing")
    assert "hush-hush" not in line


def test_at_level_debug_an_error_has_its_trace_but_no_values() -> None:
    out = told(level="DEBUG")
    try:
        failing()
    except ValueError:
        logger.exception("it broke")
    assert "Traceback" in out.getvalue()
    assert "hush-hush" not in out.getvalue()


def test_json_is_an_object_a_line() -> None:
    out = told(format="json")
    with logger.contextualize(request_id="r1"):
        logger.warning("one\nrecord")
    try:
        failing()
    except ValueError:
        logger.bind(route="/x").exception("broke")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["level"], first["message"], first["request_id"]) == ("WARNING", "one\nrecord", "r1")
    assert second["error"].startswith("ValueError: no 9 of")
    assert second["route"] == "/x"
    assert first["ts"] <= second["ts"]


@pytest.mark.parametrize("format", ["text", "json"])
def test_secrets_never_come_out(format: str) -> None:
    out = told(format=format, secrets=["p@ss w0rd", "sk-live-1"])
    logger.bind(given="sk-live-1").info("the key sk-live-1 and p@ss w0rd")
    logger.info("Authorization: Bearer abcdefgh, redis://me:letmein@host, api_key='qwertz'")
    try:
        raise RuntimeError("sk-live-1 refused")
    except RuntimeError:
        logger.exception("failed")
    for secret in ("p@ss", "sk-live-1", "abcdefgh", "letmein", "qwertz"):
        assert secret not in out.getvalue()
    assert "redis://me:***@host" in out.getvalue()
    logger.info("listening on http://127.0.0.1:8000/docs")
    assert "http://127.0.0.1:8000/docs" in out.getvalue()


def test_the_libraries_records_come_through_the_same_sink() -> None:
    out = told(format="json")
    logging.getLogger("uvicorn.error").warning("port %d", 8000)
    logging.getLogger("httpx").info("a request")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["logger"], first["message"]) == ("uvicorn.error", "port 8000")
    assert "old ways" in second["message"]


def test_a_file_takes_json_lines_too(tmp_path: Path) -> None:
    out = told(file=tmp_path / "logs" / "serve.log")
    logger.info("kept")
    logger.remove()  # waits until everything is written
    [line] = (tmp_path / "logs" / "serve.log").read_text().splitlines()
    assert json.loads(line)["message"] == "kept"
    assert "kept" in out.getvalue()


def test_a_full_file_is_put_aside_compressed_and_the_oldest_of_them_go(tmp_path: Path) -> None:
    older = [tmp_path / f"serve.2026-01-{day:02}_00-00-00_000000.log.gz" for day in range(1, RETENTION + 3)]
    for day, path in enumerate(older, start=1):
        path.write_bytes(b"")
        os.utime(path, (day, day))
    told(file=tmp_path / "serve.log")
    for number in range(11):
        logger.info("{} {}", number, "x" * 1_000_000)  # ten of them are the 10 MB of ROTATION
    logger.remove()  # waits until everything is written
    aside = sorted(set(tmp_path.glob("serve.*.gz")) - set(older))
    assert len(aside) == 1
    with gzip.open(aside[0], "rt") as lines:
        kept = [json.loads(line) for line in lines]
    kept += [json.loads(line) for line in (tmp_path / "serve.log").read_text().splitlines()]
    assert [int(line["message"].split()[0]) for line in kept] == list(range(11))
    assert {path for path in older if path.exists()} == set(older[-(RETENTION - 1) :])


KEEPER = """
import sys
from pathlib import Path
from logs import close_logs, open_logs
from loguru import logger
open_logs(level="INFO", file=Path(sys.argv[1]))
for line in sys.stdin:
    logger.info("{} {}", line.strip(), "y" * int(sys.argv[2]))
    print("written", flush=True)
close_logs()
"""


class Keeper:
    """Another process that has its logs in a file, and writes what it is told."""

    def __init__(self, file: Path, length: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", KEEPER, str(file), str(length)],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def tell(self, line: str) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "written\n"

    def end(self) -> None:
        self._process.communicate(timeout=60)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=60)


def messages(folder: Path) -> dict[str, list[str]]:
    """File → the first word of each of its records."""
    return {
        path.name: [json.loads(line)["message"].split()[0] for line in path.read_text().splitlines()]
        for path in sorted(folder.glob("*.log"))
    }


def test_a_process_does_not_write_to_the_file_of_another_one(tmp_path: Path) -> None:
    first, second = Keeper(tmp_path / "worker.log"), Keeper(tmp_path / "worker.log", 1_000_000)
    first.tell("one")
    told(file=tmp_path / "worker.log")
    told(file=tmp_path / "worker.log")  # who opens them again keeps the file
    second.tell("warm")
    logger.info("three")
    logger.remove()
    for _ in range(10):
        second.tell("more")  # its file is full and put aside; those of the others stay
    second.end()
    first.kill()
    kept = messages(tmp_path)
    assert sorted(kept) == ["worker-2.log", "worker-3.log", "worker.log"]
    assert ["one"] in kept.values()
    assert ["three"] in kept.values()
    [full] = [name for name, lines in kept.items() if "more" in lines]
    [aside] = tmp_path.glob("*.gz")
    assert aside.name.startswith(full.removesuffix("log"))


def test_a_file_is_taken_again_when_its_process_has_ended(tmp_path: Path) -> None:
    for end in (Keeper.end, Keeper.kill):
        keeper = Keeper(tmp_path / "worker.log")
        keeper.tell("here")
        end(keeper)
    assert list(messages(tmp_path)) == ["worker.log"]


class Terminal(io.StringIO):
    """What says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_only_text_on_a_terminal_is_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "CI", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured = {}
    for name, format, stream in (
        ("terminal", "text", Terminal()),
        ("file", "text", io.StringIO()),
        ("json", "json", Terminal()),
    ):
        told(format=format, stream=stream)
        logger.error("broke")
        coloured[name] = "\x1b[" in stream.getvalue()
    assert coloured == {"terminal": True, "file": False, "json": False}
