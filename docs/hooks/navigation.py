"""MkDocs hook: the pages of decisions come into the navigation by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = "decisions"
AWAITED = ("console.md", "operations.md")
"""Pages that the navigation names and that may not be written yet."""


def on_config(config: Any) -> Any:
    """Put the list of pages in the place of the entry ``decisions``, and leave out what is not written yet."""
    docs = Path(config["docs_dir"])
    pages = sorted(page.name for page in (docs / FOLDER).glob("*.md") if page.name != "README.md")
    config["nav"] = _filled(config["nav"], [f"{FOLDER}/README.md", *(f"{FOLDER}/{page}" for page in pages)])
    missing = [page for page in AWAITED if not (docs / page).exists()]
    config["nav"] = _without(config["nav"], missing)
    return config


def _without(entry: Any, missing: list[str]) -> Any:
    if isinstance(entry, list):
        return [_without(one, missing) for one in entry if not _is_one_of(one, missing)]
    if isinstance(entry, dict):
        return {title: _without(one, missing) for title, one in entry.items()}
    return entry


def _is_one_of(entry: Any, pages: list[str]) -> bool:
    return isinstance(entry, dict) and any(isinstance(page, str) and page in pages for page in entry.values())


def _filled(entry: Any, decisions: list[str]) -> Any:
    if isinstance(entry, list):
        return [_filled(one, decisions) for one in entry]
    if isinstance(entry, dict):
        return {title: _filled(one, decisions) for title, one in entry.items()}
    return decisions if entry == FOLDER else entry
