"""LangGraph's own server on ``langgraph.json``, from the virtual environment that ``make studio-check`` makes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]
LANGGRAPH = Path(os.environ.get("LUMINA_STUDIO", ROOT / ".venv-studio")) / "bin/langgraph"
QUESTION = {
    "intent": "wiki_qa",
    "message": "Who proved that the Mandelbrot set is connected?",
    "topics": ["Mandelbrot set"],
    "max_nodes": 3,
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.slow
@pytest.mark.skipif(not LANGGRAPH.exists(), reason="no LangGraph server here; `make studio-check` installs it")
async def test_langgraph_dev_opens_the_graph_and_a_run_completes(tmp_path: Path, sample: Path) -> None:
    port = free_port()
    unset = {"REDIS_URL", "QDRANT_URL", "OPENAI_API_KEY", "LANGSMITH_API_KEY"}
    environment = {
        **{name: value for name, value in os.environ.items() if name not in unset},
        "DATA_DIR": str(tmp_path / "data"),
        "WIKI_SOURCE": str(sample),
        "LLM_PROVIDER": "embedded",
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
        "LANGSMITH_TRACING": "false",
    }
    with (tmp_path / "server.log").open("wb") as log:
        server = await asyncio.create_subprocess_exec(
            *(str(LANGGRAPH), "dev", "--no-browser", "--no-reload", "--host", "127.0.0.1", "--port", str(port)),
            *("--config", str(ROOT / "langgraph.json")),
            env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=90) as client:
            while not await is_up(client):
                assert server.returncode is None, (tmp_path / "server.log").read_text()[-4_000:]
                await asyncio.sleep(0.2)
            thread = (await client.post("/threads", json={})).json()["thread_id"]
            body = {"assistant_id": "masterchat", "input": {"request": QUESTION}}
            run = (await client.post(f"/threads/{thread}/runs/wait", json=body)).json()
            state = (await client.get(f"/threads/{thread}/state")).json()
    finally:
        if server.returncode is None:
            os.killpg(server.pid, signal.SIGINT)
            await asyncio.wait_for(server.wait(), 30)
    assert run["outcome"]["status"] == "done", run
    assert "Douady" in run["results"]["answered"]["answer"]
    assert state["values"]["outcome"] == run["outcome"]


async def is_up(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/ok")).status_code == 200
    except httpx.TransportError:
        return False
