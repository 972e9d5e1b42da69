"""From ``WIKI_SOURCE`` to an open encyclopaedia."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tools.wikipedia.source import InvalidSource, WikiSource

ACCEPTED = (
    "accepted: the address of a MediaWiki's api.php (https://en.wikipedia.org/w/api.php) or the path of a .zim file"
)
_ZIM_MAGIC = b"ZIM\x04"
_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*:")
_METADATA_HOSTS = frozenset({"metadata.google.internal", "metadata", "instance-data", "metadata.azure.internal"})


@asynccontextmanager
async def open_source(wiki_source: str, *, contact: str) -> AsyncIterator[WikiSource]:
    """Open the encyclopaedia that ``WIKI_SOURCE`` names and close it afterwards.

    Args:
        wiki_source: Address of an ``api.php``, or path of a ``.zim`` file.
        contact: How the operator can be reached; sent to the wiki in the User-Agent.

    Raises:
        InvalidSource: when it is neither, when the file is missing or no ZIM archive, or when the address leads to
            this machine's link-local network, where clouds keep their credentials.
    """
    text = wiki_source.strip()
    if text.lower().startswith(("http://", "https://")):
        await _check_address(text)
        # Imported here, as the ZIM reader below, so that a command that reads nothing does not load them.
        from tools.wikipedia.mediawiki import MediaWiki

        source: WikiSource = MediaWiki(text, contact=contact)
    else:
        path = await asyncio.to_thread(_checked_path, text)
        from tools.wikipedia.zim import Zim

        source = await asyncio.to_thread(Zim, path)
    try:
        yield source
    finally:
        await source.aclose()


def _refusal(wiki_source: str, why: str) -> InvalidSource:
    shown = wiki_source if len(wiki_source) <= 200 else wiki_source[:200] + "…"
    return InvalidSource(f"WIKI_SOURCE {shown!r}: {why}; {ACCEPTED}")


def _checked_path(text: str) -> Path:
    if _SCHEME.match(text) and not re.match(r"^[a-zA-Z]:[\\/]", text):
        raise _refusal(text, f"{text.partition(':')[0]}: is not read")
    if not text.lower().endswith(".zim") or "\x00" in text:
        raise _refusal(text, "is neither an http address nor a .zim file")
    path = Path(text).expanduser()
    try:
        if not path.is_file():
            raise _refusal(text, "no such file")
        with path.open("rb") as file:
            magic = file.read(len(_ZIM_MAGIC))
    except OSError as error:
        raise _refusal(text, f"cannot be read: {error.strerror or error}") from error
    if magic != _ZIM_MAGIC:
        raise _refusal(text, "is not a ZIM archive")
    return path


async def _check_address(text: str) -> None:
    try:
        address = urlsplit(text)
        host, port = address.hostname or "", address.port
    except ValueError as error:
        raise _refusal(text, f"is not a valid address: {error}") from error
    if not host:
        raise _refusal(text, "names no host")
    if address.username is not None or address.password is not None:
        # Not shown: it would write the password into logs.
        raise InvalidSource(f"WIKI_SOURCE at {host}: user and password in an address are not sent; {ACCEPTED}")
    if not address.path.endswith("/api.php") or address.query or address.fragment:
        raise _refusal(text, "is not the address of api.php")
    if host.rstrip(".").lower() in _METADATA_HOSTS:
        raise _refusal(text, "is a cloud's metadata service, which is not read")
    for found in await _addresses(host, port or (443 if address.scheme == "https" else 80)):
        if found.is_link_local or found.is_multicast or found.is_unspecified or found.is_reserved:
            raise _refusal(text, f"leads to {found}, a link-local or reserved address, which is not read")


async def _addresses(host: str, port: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Where the host leads, odd spellings of numbers included; empty when its name is not known (yet)."""
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []  # asking it later will say so, after retries
    addresses = [ipaddress.ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers]
    return [getattr(found, "ipv4_mapped", None) or found for found in addresses]
