"""Every fault by name."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos import server_faults, worker_faults
from benchmarks.chaos.stage import FAKETIME, Outcome, Scale, Stage, open_stage


@dataclass(frozen=True)
class Fault:
    """One kind of harm."""

    run: Callable[[Stage], Awaitable[Outcome]]
    needs_faketime: bool = False

    def missing(self) -> str:
        """Why it cannot be done on this machine, or ''."""
        return "needs libfaketime (Debian: apt-get install libfaketime)" if self.needs_faketime and not FAKETIME else ""


FAULTS = {
    "worker killed": Fault(worker_faults.killed_in_mid_crawl),
    "worker frozen": Fault(worker_faults.frozen_past_its_lease),
    "workers killed": Fault(worker_faults.killed_at_random),
    "poison": Fault(worker_faults.poisoned),
    "worker's clock": Fault(worker_faults.clock_of_a_worker_moved),
    "redis's clock": Fault(server_faults.clock_of_redis_moved, needs_faketime=True),
    "redis restarted": Fault(server_faults.redis_restarted),
    "ingester killed": Fault(server_faults.ingester_killed),
    "disk full": Fault(server_faults.disk_full),
    "malformed": Fault(server_faults.malformed),
}
"""What `make chaos` does, in this order."""


async def run_fault(name: str, folder: Path, sample: Path, scale: Scale) -> Outcome:
    """Do one fault in a new folder below this one.

    Raises:
        NotReached: the work did not go on.
    """
    with tempfile.TemporaryDirectory(dir=folder) as own:
        async with open_stage(Path(own), sample, scale) as stage:
            return await FAULTS[name].run(stage)
