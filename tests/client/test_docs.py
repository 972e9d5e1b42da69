"""The examples of docs/client.md run, one after the other."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

Live = Callable[..., AbstractAsyncContextManager[str]]

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


async def test_the_examples_run(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(EXAMPLES) == 6
    async with live(answers=["Hello, Ada."]) as base_url:
        names: dict[str, Any] = {"base_url": base_url}
        for number, example in enumerate(EXAMPLES, 1):
            code = compile(example, f"docs/client.md, example {number}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if not code.co_flags & inspect.CO_COROUTINE:
                await _in_a_thread(code, names)
                continue
            await eval(code, names)
    said = capsys.readouterr().out
    for words in (
        "Douady",
        "oldid=",
        "Hello, Ada.",
        "My name is Ada. 4",
        "complete 1",
        "run",
        "plan.start",
        "ok",
        "422",
    ):
        assert words in said, words


async def _in_a_thread(code: Any, names: dict[str, Any]) -> None:
    """The server of the test runs in this thread's loop, which a blocking call would hold up."""
    await asyncio.to_thread(exec, code, names)
