"""An application: a goal file and the agents that it names."""

from __future__ import annotations

import importlib
from pathlib import Path

from agents.spec import Registry, discover
from errors import LuminaError
from graphs.goals import GoalFile, check_goals, read_goals

SHIPPED = ("agents",)

Application = tuple[Registry, GoalFile]
"""The agents, and the goals that they are for."""


class UnknownPackage(LuminaError):
    """A goal file names a package of agents that cannot be imported."""


def load_application(goal_file: Path) -> Application:
    """The agents of a goal file, and the file checked against them.

    Raises:
        InvalidGoalFile: every problem of the file, each with its line.
        UnknownPackage: a package under ``agents`` is not there or breaks when it is imported.
    """
    source = read_goals(goal_file)
    packages = check_goals(goal_file, source).agents or SHIPPED
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UnknownPackage(
                f"{goal_file.name}: agents: «{package}» cannot be imported ({error}); it must lie on PYTHONPATH"
            ) from error
    registry = discover(*packages)
    return registry, check_goals(goal_file, source, agents=registry.achievable())
