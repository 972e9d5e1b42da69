"""Whether Prometheus sees every role, has the alerts, and knows an Alertmanager that answers."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from deploy.smoke.deployment import Deployment
from deploy.smoke.report import Report, SmokeFailed

SCRAPED_S = 120.0
"""Two scrapes of every role, and the start of both servers."""


async def watch(deployment: Deployment, report: Report) -> None:
    """Ask both.

    Raises:
        SmokeFailed: a step went wrong.
    """
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:

        async def ask(path: str) -> Any:
            response = await http.get(deployment.url("prometheus", f"/api/v1/{path}"))
            return response.raise_for_status().json()["data"]

        async def targets() -> str:
            def up(data: Any) -> bool:
                return bool(states := _states(data)) and set(states.values()) == {"up"}

            return ", ".join(sorted(_states(await deployment.until(lambda: ask("targets"), up))))

        async def alerts() -> str:
            rules = [rule for group in (await ask("rules"))["groups"] for rule in group["rules"]]
            broken = [rule["name"] for rule in rules if rule["health"] == "err"]
            if broken or not rules:
                raise SmokeFailed(f"rules that fail: {broken}" if broken else "there are no rules")
            return f"{len(rules)} rules, firing: {[rule['name'] for rule in rules if rule['state'] == 'firing']}"

        async def alertmanager() -> str:
            known = await deployment.until(lambda: ask("alertmanagers"), lambda data: bool(data["activeAlertmanagers"]))
            answer = await http.get(deployment.url("alertmanager", "/api/v2/status"))
            version = answer.raise_for_status().json()["versionInfo"]["version"]
            return f"{known['activeAlertmanagers'][0]['url']}, version {version}"

        async with asyncio.timeout(SCRAPED_S):
            await report.step("targets of Prometheus are up", targets)
            await report.step("its alerts", alerts)
            await report.step("the Alertmanager it knows", alertmanager)


def _states(data: Any) -> dict[str, str]:
    """Address → its state."""
    return {target["labels"]["instance"]: str(target["health"]) for target in data["activeTargets"]}
