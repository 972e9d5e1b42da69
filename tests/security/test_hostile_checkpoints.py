"""Somebody who can write to Redis changes what a run knows; he does not get code run, nor the environment read."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from redis.asyncio import Redis

from memory import keys
from memory.checkpoint_records import CorruptCheckpoint
from memory.checkpoints import RedisSaver

THREAD: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
SECRET = "value-of-a-secret-variable"


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.file,)


def extension(code: int, *parts: Any) -> tuple[str, bytes]:
    return "msgpack", ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(parts)))


def constructor(module: str, name: str, *args: Any) -> tuple[str, bytes]:
    return "json", json.dumps({"lc": 2, "type": "constructor", "id": [module, name], "args": args}).encode()


PAYLOADS: dict[str, Callable[[Path], tuple[str, bytes]]] = {
    "a pickle": lambda file: ("pickle", pickle.dumps(Touch(file))),
    "a call with one argument": lambda file: extension(0, "os", "system", f"touch {file}"),
    "a call with several": lambda file: extension(
        1, "builtins", "exec", [f"import pathlib; pathlib.Path({str(file)!r}).touch()", {}]
    ),
    "a call with names": lambda file: extension(2, "subprocess", "Popen", {"args": ["touch", str(file)]}),
    "a method": lambda file: extension(3, "pathlib", "Path", str(file), "touch"),
    "a model of pydantic 1": lambda file: extension(4, "subprocess", "Popen", {"args": ["touch", str(file)]}),
    "a model of pydantic 2": lambda file: extension(5, "subprocess", "run", {"args": ["touch", str(file)]}, ""),
    "a constructor in JSON": lambda file: constructor("subprocess", "run", ["touch", str(file)]),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """It is there when somebody's code has run."""
    return tmp_path / "it_ran"


async def poisoned(redis: Redis, value: tuple[str, bytes], where: str) -> RedisSaver:
    """A saver whose thread holds a value that Lumina never wrote."""
    saver = RedisSaver(redis)
    checkpoint: Any = {**empty_checkpoint(), "channel_values": {"a": [1]}, "channel_versions": {"a": "1"}}
    config = await saver.aput(THREAD, checkpoint, {}, {"a": "1"})
    await saver.aput_writes(config, [("a", [2])], "task")
    kind, data = value
    _, checkpoints, blobs, writes = keys.checkpoint_thread("t")
    if where == "a channel":
        [field] = await redis.hkeys(blobs)
        await redis.hset(blobs, field, bytes([len(kind)]) + kind.encode() + data)
    elif where == "a write":
        for field, old in (await redis.hgetall(writes)).items():
            if b"task" in field and old:
                await redis.hset(writes, field, ormsgpack.packb(("task", "", [(0, "a", kind, data)])))
    else:
        [(field, old)] = (await redis.hgetall(checkpoints)).items()
        assert isinstance(old, bytes)
        body_at = 5 + int.from_bytes(old[1:5], "big")
        parts = ormsgpack.unpackb(old[body_at:])
        await redis.hset(checkpoints, field, old[:body_at] + ormsgpack.packb((*parts[:2], kind, data)))
    return RedisSaver(redis)


@pytest.mark.parametrize("where", ["a channel", "a write", "the metadata"])
@pytest.mark.parametrize("name", PAYLOADS)
async def test_no_code_runs_when_a_hostile_checkpoint_is_read(redis: Redis, file: Path, name: str, where: str) -> None:
    saver = await poisoned(redis, PAYLOADS[name](file), where)
    if PAYLOADS[name](file)[0] == "msgpack":
        found = await saver.aget_tuple(THREAD)
        assert str(file) in repr(found), "what it was made of, as plain data"
    else:
        with pytest.raises(CorruptCheckpoint, match="thread 't'"):
            await saver.aget_tuple(THREAD)
    assert not os.path.exists(file)  # noqa: ASYNC240, PTH110  # nothing else runs


@pytest.mark.parametrize("name", ["a pickle", "a call with one argument", "a call with several"])
def test_the_payloads_are_real(file: Path, name: str) -> None:
    """With the serializer's own defaults of old they run; otherwise the test above would prove nothing."""
    JsonPlusSerializer(pickle_fallback=True, allowed_msgpack_modules=True).loads_typed(PAYLOADS[name](file))
    assert file.exists()


async def test_a_checkpoint_cannot_ask_for_a_variable_of_the_environment(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    wanted = json.dumps({"lc": 1, "type": "secret", "id": ["SOME_API_KEY"]}).encode()
    saver = await poisoned(redis, ("json", wanted), "a channel")
    with pytest.raises(CorruptCheckpoint) as caught:
        await saver.aget_tuple(THREAD)
    assert SECRET not in str(caught.value)
