"""Which page each title asked for leads to, from the pieces of a MediaWiki answer.

The wiki reports its steps as lists (``normalized``, ``converted``, ``redirects``, ``interwiki``), not per title
(https://www.mediawiki.org/wiki/API:Query#Title_normalization).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.wikipedia.titles import clean_title, why_invalid

Found = Mapping[str, Any]
"""A page object of the answer."""


@dataclass(slots=True)
class Resolution:
    """Collects the ``query`` objects of one or several answers."""

    steps: dict[str, str] = field(default_factory=dict)
    pages: dict[str, dict[str, Any]] = field(default_factory=dict)
    interwikis: dict[str, str] = field(default_factory=dict)

    def add(self, query: Mapping[str, Any]) -> None:
        """Take in one ``query`` object; lists of a page that is continued are joined."""
        for name in ("normalized", "converted", "redirects"):
            for step in query.get(name) or []:
                if step["from"] != step["to"] or name == "redirects":
                    self.steps[step["from"]] = clean_title(step["to"]) or step["to"]
        for entry in query.get("interwiki") or []:
            self.interwikis[entry["title"]] = entry.get("iw", "")
        for page in query.get("pages") or []:
            known = self.pages.setdefault(page.get("title", ""), {})
            for key, value in page.items():
                known[key] = [*known[key], *value] if isinstance(value, list) and key in known else value

    def follow(self, title: str) -> tuple[Found | None, str]:
        """The page a cleaned title leads to, or why there is none (empty reason: no such article)."""
        seen = {title}
        while title in self.steps:
            title = self.steps[title]
            if title in seen:
                return None, "redirect loop"
            seen.add(title)
        if title in self.interwikis:
            return None, f"belongs to another wiki ({self.interwikis[title]}:)"
        page = self.pages.get(title)
        if page is None:
            # A wiki leaves out of ``pages`` what its redirects never reach.
            return None, "redirect loop" if len(seen) > 1 else ""
        if page.get("invalid"):
            return None, f"invalid title: {page.get('invalidreason') or 'refused by the wiki'}"
        if page.get("ns", 0) != 0 or page.get("special"):
            return None, f"not an article: {page.get('title', '')} is in another namespace"
        return (None, "") if page.get("missing") else (page, "")


def to_ask(titles: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Title asked for → cleaned title, and title asked for → why it cannot be one."""
    wanted: dict[str, str] = {}
    refused: dict[str, str] = {}
    for title in titles:
        cleaned = clean_title(title)
        if why := why_invalid(cleaned):
            refused[title] = why
        else:
            wanted[title] = cleaned
    return wanted, refused
