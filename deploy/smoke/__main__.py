"""The smoke test of a deployment, for ``deploy/smoke.sh``: health → a crawl → ``node.add`` on the mux → DuckDB.

It uses nothing of the application but what any client could, and what it has started it ends, also after Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from deploy.smoke.containers import COMPOSED, compose
from deploy.smoke.deployment import PORTS, WATCHING, Deployment, free_port
from deploy.smoke.processes import local
from deploy.smoke.report import Report, SmokeFailed
from deploy.smoke.walk import walk
from deploy.smoke.watch import watch

TIMEOUT_S = {"local": 600.0, "compose": 1800.0}
"""All steps together."""


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
    parser.add_argument("--watched", action="store_true", help="with Prometheus and Alertmanager, and what they see")
    for role, port in (PORTS | WATCHING).items():
        parser.add_argument(f"--{role}", type=int, default=port, metavar="PORT", help=f"port of it ({port})")
    given = parser.parse_args()
    if given.local and given.watched:
        parser.error("--watched needs containers: leave --local out")
    return given


def _ended(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run it; 0 when everything was well."""
    given = _arguments()
    signal.signal(signal.SIGTERM, _ended)
    signal.signal(signal.SIGHUP, _ended)
    names = PORTS | WATCHING if given.watched else PORTS
    ports = {role: free_port() if given.free_ports else getattr(given, role.replace("-", "_")) for role in names}
    report, begun = Report(), time.monotonic()

    async def run(deployment: Deployment) -> None:
        async with _within(TIMEOUT_S["local" if given.local else "compose"]):
            await walk(deployment, report)
            if given.watched:
                await watch(deployment, report)

    try:
        with (
            local(ports)
            if given.local
            else compose(ports, given.file, given.without, build=not given.no_build, watched=given.watched)
        ) as deployment:
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
