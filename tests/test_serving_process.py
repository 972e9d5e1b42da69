"""What a served process does beside answering."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from pathlib import Path

from server import address_file, serve
from serving.roles import ROLES
from settings import load_settings


async def test_a_server_that_is_up_collects_garbage_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    settings = load_settings(data_dir=tmp_path / "data", redis_url=None)
    role = ROLES["graph-api"]
    gc.disable()  # as the command does before it imports the server
    serving = asyncio.create_task(serve(settings, host="127.0.0.1", port=port, role=role))
    try:
        async with asyncio.timeout(60):
            while not address_file(settings.data_dir, role.name).exists() and not serving.done():
                await asyncio.sleep(0.01)
        assert gc.isenabled()
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
        gc.enable()
    signal.raise_signal(signal.SIGTERM)  # uvicorn has taken it over
    assert await serving
