"""What one wiki says about itself: its namespaces, its neighbours, the addresses of its revisions."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

ENGLISH_NAMESPACES: Mapping[str, int] = {
    "media": -2, "special": -1, "talk": 1, "user": 2, "user talk": 3, "project": 4, "project talk": 5,
    "wikipedia": 4, "wikipedia talk": 5, "file": 6, "file talk": 7, "image": 6, "image talk": 7, "mediawiki": 8,
    "mediawiki talk": 9, "template": 10, "template talk": 11, "help": 12, "help talk": 13, "category": 14,
    "category talk": 15, "portal": 100, "portal talk": 101, "draft": 118, "draft talk": 119, "timedtext": 710,
    "module": 828, "module talk": 829,
}  # fmt: skip
"""Namespaces of the English Wikipedia (https://en.wikipedia.org/wiki/Wikipedia:Namespace), lower case."""
FILE, CATEGORY = 6, 14


@dataclass(frozen=True, slots=True)
class Site:
    """The facts of one wiki, from ``meta=siteinfo``."""

    script_url: str = ""
    """Absolute address of ``index.php``."""
    namespaces: Mapping[str, int] = field(default_factory=lambda: ENGLISH_NAMESPACES)
    """Name in lower case → id, aliases and canonical names included; articles (0) not."""
    interwikis: frozenset[str] = frozenset()
    """Prefixes that lead to other wikis, lower case."""
    article_path: str = "/wiki/$1"
    keeps_first_letter: bool = False
    """Whether «fractal» and «Fractal» are different titles, as on Wiktionary."""
    has_extracts: bool = False
    """Whether the extension TextExtracts is installed."""

    def namespace_of(self, title: str) -> int:
        """Id of a title's namespace; 0 is articles."""
        head, colon, _ = title.partition(":")
        return self.namespaces.get(head.strip().replace("_", " ").lower(), 0) if colon else 0

    def is_interwiki(self, title: str) -> bool:
        """Whether the title belongs to another wiki."""
        head, colon, _ = title.partition(":")
        return bool(colon) and head.strip().lower() in self.interwikis

    def revision_url(self, title: str, revision: str | int) -> str:
        """Address of exactly one revision (https://www.mediawiki.org/wiki/Help:Permanent_link)."""
        return f"{self.script_url}?title={quote(title.replace(' ', '_'), safe='/:(),')}&oldid={revision}"


def read_site(query: Mapping[str, Any], api_url: str) -> Site:
    """The site that ``meta=siteinfo&siprop=general|namespaces|namespacealiases|interwikimap|extensions`` describes."""
    general: Mapping[str, Any] = query.get("general") or {}
    namespaces: dict[str, int] = {}
    for entry in (query.get("namespaces") or {}).values():
        for name in (entry.get("name"), entry.get("canonical")):
            if name and entry["id"] != 0:
                namespaces[name.lower()] = entry["id"]
    for entry in query.get("namespacealiases") or []:
        namespaces[str(entry.get("alias", "")).lower()] = entry["id"]
    interwikis = frozenset(str(entry["prefix"]).lower() for entry in query.get("interwikimap") or [])
    return Site(
        script_url=_script_url(str(general.get("server") or ""), str(general.get("script") or ""), api_url),
        namespaces=namespaces or ENGLISH_NAMESPACES,
        interwikis=interwikis - namespaces.keys(),
        article_path=str(general.get("articlepath") or "/wiki/$1"),
        keeps_first_letter=general.get("case") == "case-sensitive",
        has_extracts=any(entry.get("name") == "TextExtracts" for entry in query.get("extensions") or []),
    )


def _script_url(server: str, script: str, api_url: str) -> str:
    """``index.php`` as a reader can open it: on the server that the wiki names, or where its API was reached.

    A wiki behind a proxy often names no server, or its own loopback address.
    """
    api = urlsplit(api_url)
    if server.startswith("//"):
        server = f"{api.scheme}:{server}"
    named = urlsplit(server)
    usable = named.scheme in ("http", "https") and bool(named.hostname)
    if not usable or (_is_loopback(named.hostname or "") and not _is_loopback(api.hostname or "")):
        server = f"{api.scheme}://{api.netloc}"
    path = script if script.startswith("/") else f"{api.path.rpartition('/')[0]}/index.php"
    return server.rstrip("/") + path


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
