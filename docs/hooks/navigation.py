"""MkDocs hook: the pages of decisions come into the navigation by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = "decisions"


def on_config(config: Any) -> Any:
    """Put the list of pages in the place of the entry ``decisions``."""
    docs = Path(config["docs_dir"])
    pages = sorted(page.name for page in (docs / FOLDER).glob("*.md") if page.name != "README.md")
    config["nav"] = _filled(config["nav"], [f"{FOLDER}/README.md", *(f"{FOLDER}/{page}" for page in pages)])
    return config


def _filled(entry: Any, decisions: list[str]) -> Any:
    if isinstance(entry, list):
        return [_filled(one, decisions) for one in entry]
    if isinstance(entry, dict):
        return {title: _filled(one, decisions) for title, one in entry.items()}
    return decisions if entry == FOLDER else entry
