"""Alerts and dashboards: that their files are whole, and that every question in them has an answer."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML

from serving.roles import ROLES

Live = Callable[..., AbstractAsyncContextManager[str]]
DEPLOY = Path(__file__).parents[1] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
KEY = "scraper-key"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not shutil.which(program), reason=f"{program} is not installed (Debian: prometheus, prometheus-alertmanager)"
    )


def read_yaml(name: str) -> Any:
    return YAML(typ="safe", pure=True).load(DEPLOY / name)


RULES: list[dict[str, Any]] = [
    rule for group in read_yaml("prometheus/alerts.yml")["groups"] for rule in group["rules"]
]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """deploy/grafana/dashboards.py, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("dashboards", DEPLOY / "grafana/dashboards.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def expressions() -> Iterator[tuple[str, str]]:
    """(where, expression) of every panel."""
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{file.stem}: {panel['title']}", target["expr"]


# --- alerts


@needs("promtool")
@pytest.mark.parametrize(
    "command",
    [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
        ["check", "config", "--syntax-only", "prometheus.yml"],
    ],
    ids=" ".join,
)
def test_promtool_accepts_the_alerts_and_their_cases(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs("amtool")
def test_amtool_accepts_the_file_of_the_alertmanager() -> None:
    file = DEPLOY / "alertmanager/alertmanager.yml"
    done = subprocess.run(["amtool", "check-config", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_what_to_do_and_has_a_case_in_which_it_fires_and_one_in_which_not(
    rule: dict[str, Any],
) -> None:
    assert rule["annotations"]["summary"]
    assert len(rule["annotations"]["runbook"]) > 100
    assert rule["labels"]["severity"] in ("warning", "critical")
    cases = [case for test in read_yaml("prometheus/alerts_test.yml")["tests"] for case in test["promql_expr_test"]]
    mine = [bool(case.get("exp_samples")) for case in cases if f'alertname="{rule["alert"]}"' in case["expr"]]
    assert set(mine) == {True, False}


def test_inhibitions_name_alerts_that_there_are() -> None:
    known = {rule["alert"] for rule in RULES}
    rules = read_yaml("alertmanager/alertmanager.yml")["inhibit_rules"]
    named = {name for rule in rules for name in re.findall(r"Lumina\w+", str(rule))}
    assert named <= known


def test_every_role_is_scraped_at_its_address_in_compose() -> None:
    [job] = [job for job in read_yaml("prometheus/prometheus.yml")["scrape_configs"] if job["job_name"] == "lumina"]
    scraped = {one["labels"]["role"]: one["targets"] for one in job["static_configs"]}
    assert set(scraped) == set(ROLES) - {"all"}
    services = read_yaml("compose.yaml")["services"]
    for role, [target] in scraped.items():
        host, port = target.split(":")
        [service] = [one for name, one in services.items() if name in (host, f"{host}-api")]
        command = service["command"]
        given = command[command.index("--port") + 1] if "--port" in command else str(ROLES[role].port)
        assert (command[:3], port) == (["serve", "--role", role], given)


# --- dashboards


def test_the_dashboards_are_what_the_generator_writes(generator: ModuleType) -> None:
    assert {file.stem for file in DASHBOARDS} == set(generator.DASHBOARDS)
    for file in DASHBOARDS:
        assert file.read_text() == generator.text_of(file.stem), "run `make dashboards`"


def test_panels_have_places_of_their_own_and_the_datasource_that_is_provisioned() -> None:
    uid = read_yaml("grafana/provisioning/datasources/prometheus.yml")["datasources"][0]["uid"]
    for file in DASHBOARDS:
        panels = json.loads(file.read_text())["panels"]
        assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert {panel["datasource"]["uid"] for panel in panels} == {uid}


@asynccontextmanager
async def prometheus(url: str, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A real Prometheus that scrapes a server every second, with our file but for times and addresses."""
    config = read_yaml("prometheus/prometheus.yml")
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    del config["alerting"]
    [job] = [job for job in config["scrape_configs"] if job["job_name"] == "lumina"]
    job["static_configs"] = [{"targets": [url.removeprefix("http://")], "labels": {"role": "hub"}}]
    config["scrape_configs"] = [job]
    shutil.copy(DEPLOY / "prometheus/alerts.yml", folder)
    (folder / "lumina_api_key").write_text(KEY)
    with (folder / "prometheus.yml").open("w") as file:
        YAML(typ="safe", pure=True).dump(config, file)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
        "--log.level=error",
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}/api/v1", timeout=30) as client:
            yield client
    finally:
        process.terminate()
        await process.wait()


async def answer_of(client: httpx.AsyncClient, expression: str) -> list[Any]:
    """What Prometheus answers now; an expression that it cannot read fails the test."""
    asked = expression.replace("$__rate_interval", "1m")
    response = await client.get("/query", params={"query": asked})
    assert response.status_code == 200, f"{asked}: {response.text}"
    found: list[Any] = response.json()["data"]["result"]
    return found


async def until_scraped(client: httpx.AsyncClient, expression: str) -> None:
    while True:
        try:
            if await answer_of(client, expression):
                return
        except httpx.TransportError:
            pass  # it is not up yet
        await asyncio.sleep(0.2)


@pytest.mark.slow
@needs("prometheus")
async def test_every_panel_has_an_answer_after_one_question(live: Live, tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    question = {"message": "Who proved that it is connected?", "mode": "wiki_qa", "topics": ["Mandelbrot set"]}
    async with live(keys=f"ada:{KEY}") as url, httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as lumina:
        (await lumina.post("/masterchat/chat", json={**question, "max_nodes": 3})).raise_for_status()
        async with prometheus(url, tmp_path) as client:
            # Two scrapes with figures that were read after the question: a rate needs two.
            await until_scraped(
                client, "count_over_time(lumina_run_seconds_count[1m]) > 2 and lumina_run_seconds_count > 0"
            )
            await until_scraped(client, "lumina_conversations > 0")
            empty = {where for where, expression in expressions() if not await answer_of(client, expression)}
            for rule in RULES:
                await answer_of(client, rule["expr"])
            listed = (await client.get("/rules")).json()["data"]["groups"]
    assert not empty
    health = {rule["name"]: (rule["health"], rule.get("lastError")) for group in listed for rule in group["rules"]}
    assert set(health) == {rule["alert"] for rule in RULES}
    assert {state for state, _ in health.values()} <= {"ok", "unknown"}, health
