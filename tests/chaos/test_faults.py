"""What ``make chaos`` does, in small: real processes that are killed, frozen and led astray."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.chaos.faults import FAULTS, run_fault
from benchmarks.chaos.stage import SMALL


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FAULTS)
async def test_nothing_is_lost_and_nothing_done_twice(name: str, tmp_path: Path, sample: Path) -> None:
    if reason := FAULTS[name].missing():
        pytest.skip(reason)
    outcome = await run_fault(name, tmp_path, sample, SMALL)
    assert (outcome.lost, outcome.duplicated) == (0, 0), outcome
