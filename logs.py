"""Where log records go and what they look like: one line each, for people or for machines.

Records of the libraries (uvicorn, LangChain, httpx, warnings) pass through the same sinks. Values that are secret are
taken out of every line, and an error is one line with its place; its trace comes at level DEBUG only, and never with
the values of variables.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from loguru import logger

if TYPE_CHECKING:
    from loguru import Record

ROTATION = "10 MB"
RETENTION = 10
"""Old files that are kept, gzipped."""
BOUND = ("request_id", "task_id", "agent", "owner")
"""What a record says of where it belongs, when that is known."""
_SECRET_SHAPES = re.compile(
    r"(?P<keep>\bBearer\s+|\b(?:api[_-]?key|password|token)[\"']?\s*[=:]\s*[\"']?)[^\s\"'@,}]{4,}"
    r"|(?P<address>://[^/\s:@]*:)[^/\s@]+(?=@)",
    re.IGNORECASE,
)
"""What looks like a secret, whichever it is: bearer tokens, ``api_key=…``, passwords in addresses."""
HIDDEN = "***"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""What would begin another line, or tell a terminal what to do."""


def open_logs(
    *,
    level: str,
    format: Literal["text", "json"] = "text",
    secrets: Collection[str] = (),
    file: Path | None = None,
    stream: TextIO | None = None,
    times: bool = True,
) -> None:
    """Send every record of this process to standard error, and to a file; what was set before is replaced.

    Args:
        level: The least level that is shown: DEBUG, INFO, WARNING, ERROR.
        format: ``text``, in colour where a terminal is, or ``json``: an object a line.
        secrets: Values that no line may contain.
        file: JSON lines as well, rotated at ``ROTATION``, ``RETENTION`` old ones kept. Where another process writes to
            it, ``name-2.log`` beside it, and so on.
        stream: Instead of standard error.
        times: Whether a line of text begins with the time of day.
    """
    clean = _cleaner(secrets)
    out = stream or sys.stderr
    logger.remove()
    text = _text_format(clean, times=times, traces=level == "DEBUG")
    shape = _json_format(clean) if format == "json" else text
    logger.add(out, level=level, format=shape, diagnose=False, backtrace=False)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        logger.add(
            _own(file),
            level=level,
            format=_json_format(clean),
            diagnose=False,
            backtrace=False,
            enqueue=True,  # compressing a rotated file takes a third of a second, which the event loop must not wait
            rotation=ROTATION,
            retention=RETENTION,
            compression="gz",
        )
    _take_in_the_standard_library(level)


def _own(file: Path) -> Path:
    """The file, or else the first one numbered after it, that no other process writes to until this one ends.

    Two that wrote to one file would each put it aside under the other. The numbers are used again, so that as many
    files stay as processes ran at a time, however many come and go.
    """
    free, number = file, 1
    while not _lock(free.with_suffix(".lock")):
        number += 1
        free = file.with_stem(f"{file.stem}-{number}")
    return free


def _lock(path: Path) -> bool:
    """Whether the lock is this process's now, until it ends.

    A lock of this kind belongs to the process, so that whoever opens the logs again keeps the file; closing any
    descriptor of it would give it up.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX leaves open which of the two says that it is taken
        os.close(descriptor)
        return False
    return True


def close_logs() -> None:
    """Write what is still on its way to the file. Nothing is logged afterwards."""
    logger.remove()


def _cleaner(secrets: Collection[str]) -> Callable[[str], str]:
    known = [re.escape(secret) for secret in sorted(secrets, key=len, reverse=True) if secret]
    exact = re.compile("|".join(known)) if known else None

    def clean(text: str) -> str:
        if exact:
            text = exact.sub(HIDDEN, text)
        return _SECRET_SHAPES.sub(lambda found: (found["keep"] or found["address"]) + HIDDEN, text)

    return clean


def _place(record: Record) -> str:
    """An exception in one line: its type, what it says, and where it came from."""
    exception = record["exception"]
    if exception is None or exception.type is None:
        return ""
    frames = traceback.extract_tb(exception.traceback)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return f"{exception.type.__name__}: {exception.value}{where}"


def _text_format(clean: Callable[[str], str], *, times: bool, traces: bool) -> Callable[[Record], str]:
    head = "<dim>{time:HH:mm:ss}</dim> " if times else ""

    def format(record: Record) -> str:
        record["extra"]["_line"] = _CONTROL.sub(" ", clean(record["message"]))
        bound = {name: record["extra"][name] for name in BOUND if record["extra"].get(name)}
        record["extra"]["_bound"] = _CONTROL.sub(" ", "".join(f" {name}={value}" for name, value in bound.items()))
        record["extra"]["_error"] = _CONTROL.sub(" ", clean(f" – {place}")) if (place := _place(record)) else ""
        trace = "{exception}" if traces else ""
        return (
            f"{head}<level>{{level: <8}}</level> {{extra[_line]}}{{extra[_error]}}<dim>{{extra[_bound]}}</dim>\n{trace}"
        )

    return format


def _as_json(record: Record, clean: Callable[[str], str]) -> str:
    fields: dict[str, Any] = {
        "ts": record["time"].astimezone().isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "message": clean(record["message"]),
        "logger": record["name"],
        "line": record["line"],
        "pid": record["process"].id,
    }
    shown = {name: value for name, value in record["extra"].items() if not name.startswith("_")}
    fields |= {name: clean(value) if isinstance(value, str) else value for name, value in shown.items()}
    if place := _place(record):
        fields["error"] = clean(place)
    return json.dumps(fields, ensure_ascii=False, default=str)


def _json_format(clean: Callable[[str], str]) -> Callable[[Record], str]:
    def format(record: Record) -> str:
        record["extra"]["_json"] = _as_json(record, clean)
        return "{extra[_json]}\n"

    return format


class _Intercepted(logging.Handler):
    """Hands the standard library's records to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno

        def say_where(ours: Record) -> None:
            ours["name"], ours["function"], ours["line"] = record.name, record.funcName, record.lineno

        logger.patch(say_where).opt(exception=record.exc_info).log(level, "{}", record.getMessage())


LEAST_OF_LIBRARIES = logging.INFO
"""Below this no record of a library is shown: what they tell at DEBUG are the bodies and headers of requests (openai,
sse_starlette, hpack), and in these are messages and keys."""

NOISY = (
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "urllib3",
    "asyncio",
    "sentence_transformers",
    "aiokafka",
    "filelock",
)
"""Libraries whose INFO tells of every request or step."""


def _take_in_the_standard_library(level: str) -> None:
    least = max(LEAST_OF_LIBRARIES, logging.getLevelName(level))
    logging.basicConfig(handlers=[_Intercepted(least)], level=least, force=True)
    logging.captureWarnings(True)
    for name in NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        theirs = logging.getLogger(name)
        theirs.handlers, theirs.propagate = [], True
        theirs.setLevel(logging.NOTSET)
