from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError

from memory.redis_embedded import SOCKET_PATH_MAX_BYTES
from memory.redis_server import RedisUnavailable, check_redis, open_redis, public_address

USER = """
import asyncio, os, sys
from pathlib import Path
from memory.redis_server import open_redis

async def main():
    async with open_redis(None, Path(sys.argv[1])) as redis:
        await redis.set(f"user:{os.getpid()}", "was here")
        print((await redis.info("server"))["process_id"], flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


@pytest.fixture
def user() -> Iterator[Callable[[Path], tuple[subprocess.Popen[str], int]]]:
    """Starts another process that uses a data_dir until its input is closed; gives it and the server's process id."""
    with contextlib.ExitStack() as stack:

        def start(data_dir: Path) -> tuple[subprocess.Popen[str], int]:
            process = subprocess.Popen(
                [sys.executable, "-c", USER, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            return process, int(process.stdout.readline())

        yield start


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed child of nobody here may stay a zombie where process 1 does not reap.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 30  # one whose locks are free takes a moment to go
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


async def server_pid(data_dir: Path) -> int:
    async with open_redis(None, data_dir) as redis:
        return int((await redis.info("server"))["process_id"])


async def test_it_keeps_what_was_written_and_leaves_no_process(tmp_path: Path) -> None:
    async with open_redis(None, tmp_path) as redis:
        await redis.set("key", "value")
        pid = int((await redis.info("server"))["process_id"])
        settings = await redis.config_get("*")
        assert (settings["port"], settings["appendonly"], settings["maxmemory-policy"]) == ("0", "yes", "noeviction")
    assert gone(pid)
    assert not (tmp_path / "redis" / "s").exists()
    async with open_redis(None, tmp_path) as redis:
        assert await redis.get("key") == b"value"


async def test_a_folder_with_odd_characters_works(tmp_path: Path) -> None:
    async with open_redis(None, tmp_path / 'it\'s "a" folder\twith ünï') as redis:
        assert await redis.ping()


async def test_health_tells_kind_and_version(tmp_path: Path) -> None:
    async with open_redis(None, tmp_path) as redis:
        health = await check_redis(redis)
    assert health["kind"] == "valkey"
    assert health["mode"] == "standalone"
    assert int(health["version"].split(".")[0]) >= 9
    assert health["append_only"] is True


async def test_a_long_path_puts_the_socket_elsewhere_and_removes_it(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long" * 30)
    async with open_redis(None, data_dir) as redis, open_redis(None, data_dir) as second:
        path = Path((data_dir / "redis" / "socket").read_text())
        assert len(os.fsencode(path)) <= SOCKET_PATH_MAX_BYTES
        assert path.parent.stat().st_mode & 0o777 == 0o700
        await redis.set("a", "b")
        assert await second.get("a") == b"b"
    assert not path.parent.exists()


async def test_many_who_start_at_once_share_one_server(tmp_path: Path) -> None:
    pids = set()
    inside = asyncio.Barrier(8)

    async def use() -> None:
        async with open_redis(None, tmp_path) as redis:
            pids.add(int((await redis.info("server"))["process_id"]))
            await inside.wait()

    await asyncio.gather(*(use() for _ in range(8)))
    assert len(pids) == 1
    assert gone(pids.pop())


async def test_two_processes_share_it_and_the_last_one_stops_it(
    tmp_path: Path, user: Callable[[Path], tuple[subprocess.Popen[str], int]]
) -> None:
    other, pid = user(tmp_path)
    async with open_redis(None, tmp_path) as redis:
        assert int((await redis.info("server"))["process_id"]) == pid
        assert await redis.get(f"user:{other.pid}") == b"was here"
        other.communicate("\n")
        assert other.returncode == 0
        # The process that started it has gone, the server has not.
        assert await redis.ping()
    assert gone(pid)


async def test_ctrl_c_in_the_process_that_started_it_does_not_take_it_from_others(
    tmp_path: Path, user: Callable[[Path], tuple[subprocess.Popen[str], int]]
) -> None:
    other, pid = user(tmp_path)
    async with open_redis(None, tmp_path) as redis:
        other.send_signal(signal.SIGINT)
        other.communicate("\n")
        assert await redis.ping()
    assert gone(pid)


async def test_after_kill_9_of_its_only_user_the_server_is_found_again(
    tmp_path: Path, user: Callable[[Path], tuple[subprocess.Popen[str], int]]
) -> None:
    other, pid = user(tmp_path)
    other.kill()
    other.wait()
    assert alive(pid)
    assert await server_pid(tmp_path) == pid
    assert gone(pid)


async def test_after_kill_9_of_the_server_too_a_new_one_takes_its_place(
    tmp_path: Path, user: Callable[[Path], tuple[subprocess.Popen[str], int]]
) -> None:
    other, pid = user(tmp_path)
    other.kill()
    other.wait()
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    assert (tmp_path / "redis" / "s").exists(), "the stale socket is what this test is about"
    async with open_redis(None, tmp_path) as redis:
        assert int((await redis.info("server"))["process_id"]) != pid
        assert await redis.get(f"user:{other.pid}") == b"was here"


async def test_a_server_that_dies_under_its_users_comes_back_with_what_was_written(tmp_path: Path) -> None:
    async with open_redis(None, tmp_path) as redis, open_redis(None, tmp_path) as other:
        await redis.set("key", "value")
        old = int((await redis.info("server"))["process_id"])
        os.kill(old, signal.SIGKILL)
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(ConnectionError):
                    assert await other.get("key") == b"value"
                    break
        new = int((await redis.info("server"))["process_id"])
        assert new != old
    assert gone(new)


async def test_a_server_that_dies_under_its_user_leaves_a_clean_exit(tmp_path: Path) -> None:
    async with open_redis(None, tmp_path) as redis:
        pid = int((await redis.info("server"))["process_id"])
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)
    assert not (tmp_path / "redis" / "s").exists()


async def test_a_data_dir_removed_under_it_still_stops_the_server(tmp_path: Path) -> None:
    async with open_redis(None, tmp_path / "a") as redis:
        pid = int((await redis.info("server"))["process_id"])
        (tmp_path / "a").rename(tmp_path / "b")
    assert gone(pid)


async def test_cancelling_the_start_leaves_nothing(tmp_path: Path) -> None:
    async def start() -> None:
        async with open_redis(None, tmp_path):
            raise AssertionError("cancelled before")

    task = asyncio.create_task(start())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with contextlib.suppress(FileNotFoundError):
        assert gone(int((tmp_path / "redis" / "server.pid").read_text()))
    assert not (tmp_path / "redis" / "s").exists()


async def test_more_callers_than_connections_wait_for_each_other(tmp_path: Path) -> None:
    async with open_redis(None, tmp_path, max_connections=8) as redis:
        assert len(await asyncio.gather(*(redis.incr("n") for _ in range(500)))) == 500
        assert await redis.get("n") == b"500"


async def test_a_data_dir_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RedisUnavailable, match=r"file/redis: Not a directory; .*DATA_DIR") as caught:
        async with open_redis(None, tmp_path / "file"):
            pass
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    # A limit on the size of files stands for the full disk: the write fails in the same place.
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n{USER}"
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=30)
    assert "RedisUnavailable: embedded Redis cannot use" in ended.stderr.splitlines()[-1]
    assert "File too large" in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "redis" / "probe").exists()


async def test_a_damaged_append_only_file_is_named(tmp_path: Path) -> None:
    async with open_redis(None, tmp_path) as redis:
        await redis.set("a", "b")
    for path in (tmp_path / "redis" / "appendonlydir").glob("*.incr.aof"):
        path.write_bytes(b"this is no append-only file, and it is longer than one line\n" * 20)
    with pytest.raises(RedisUnavailable, match=r"did not start: .*[Aa]ppend.*server\.log"):
        async with open_redis(None, tmp_path):
            pass


async def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(RedisUnavailable, match="no-such-server is not a program on PATH"):
        async with open_redis(None, tmp_path, binary="no-such-server"):
            pass


async def test_an_absent_server_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(RedisUnavailable, match=r"redis://127\.0\.0\.1:1/3 does not answer.*REDIS_URL") as caught:
        async with open_redis("redis://me:secret@127.0.0.1:1/3", tmp_path):
            pass
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_wrong_password_is_one_clear_line(tmp_path: Path) -> None:
    async with open_redis(None, tmp_path) as redis:
        await redis.config_set("requirepass", "right")
        path = (tmp_path / "redis" / "socket").read_text()
        with pytest.raises(RedisUnavailable, match="REDIS_URL") as caught:
            async with open_redis(f"unix://:wrong@{path}", tmp_path):
                pass
        assert "wrong@" not in str(caught.value)
        async with open_redis(f"unix://:right@{path}", tmp_path) as client:
            assert await client.ping()
            await client.config_set("requirepass", "")


@pytest.mark.parametrize("url", ["http://u:secret@host", "redis//secret", "redis://u:secret@host:99999/0", "secret"])
async def test_a_url_that_is_none_is_refused_without_its_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(RedisUnavailable, match="REDIS_URL") as caught:
        async with open_redis(url, tmp_path):
            pass
    assert "secret" not in str(caught.value)
    assert "secret" not in public_address(url)


async def test_a_cancelled_call_is_cancelled_whenever_the_cancellation_comes(tmp_path: Path) -> None:
    async with open_redis(None, tmp_path) as client:
        await client.set("k", 0)
        swallowed = 0

        async def work(began: asyncio.Event) -> None:
            began.set()
            await client.incr("k")

        for steps in range(60):
            began = asyncio.Event()
            task = asyncio.create_task(work(began))
            await began.wait()
            for _ in range(steps % 6):
                await asyncio.sleep(0)
            if task.cancel():
                await asyncio.wait({task})
                swallowed += not task.cancelled()
        assert not swallowed


@pytest.mark.parametrize("option", ["protocol=3", "decode_responses=true", "legacy_responses=false", "protocol=2"])
async def test_options_of_a_url_change_nothing_in_what_is_read(redis_url: str, tmp_path: Path, option: str) -> None:
    async with open_redis(f"{redis_url}?{option}&client_name=somebody", tmp_path) as redis:
        await redis.delete("read")
        await redis.xadd("read", {"a": "b"}, id="1-0")
        await redis.xgroup_create("read", "group", id="0")
        entries = [[b"read", [(b"1-0", {b"a": b"b"})]]]
        assert await redis.xreadgroup("group", "one", {"read": ">"}) == entries
        assert await redis.client_getname() == "somebody"
