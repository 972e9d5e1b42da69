"""The sample encyclopaedia: a folder of Markdown articles in, one ZIM file out.

``python -m tools.encyclopaedia OUT.zim`` builds it and prints the counts; ``ensure_sample`` does so only when needed.
How an article is written is told in ``encyclopaedia/README.md``; the file format is openZIM's
(https://wiki.openzim.org/wiki/ZIM_file_format), written by libzim.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import LuminaError
from tools.markdown_articles import InvalidArticle, entry_path, read_articles, render

__all__ = ["ARTICLES", "BuildFailed", "BuildReport", "InvalidArticle", "build_zim", "ensure_sample"]

ROOT = Path(__file__).resolve().parents[1]
ARTICLES = ROOT / "encyclopaedia" / "articles"
MAIN_TITLE = "Mandelbrot set"
"""The article that a ZIM reader opens first, where it exists."""
DIGEST_KEY = "X-Lumina-Digest"
"""ZIM metadata that tells from which sources the file was built."""
METADATA = {
    "Name": "lumina-sample",
    "Title": "Lumina sample encyclopaedia",
    "Description": "Original short articles on fractals and complex dynamics",
    "Language": "eng",
    "Creator": "Lumina contributors",
    "Publisher": "Lumina",
    "Date": "2026-11-23",
    "License": "Apache-2.0",
    "Source": "encyclopaedia/articles",
    "Scraper": "tools.encyclopaedia",
    "Tags": "fractals;mathematics",
}
"""What openZIM asks every file to say of itself. The date is the edition's and fixed, so that builds do not differ."""


class BuildFailed(LuminaError):
    """libzim could not write the file."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What went into a ZIM file."""

    target: Path
    articles: int
    """Pages, disambiguation pages included."""
    redirects: int
    disambiguations: int
    links: int
    """Links from page to page, repetitions included."""
    words: int
    size_bytes: int
    seconds: float


def build_zim(articles: Path, target: Path) -> BuildReport:
    """Build ``target`` from the Markdown files of the folder ``articles``.

    The file appears whole or not at all; its content depends on the sources only (the UUID that libzim draws excepted).
    A process that builds the same target waits for its turn.

    Raises:
        InvalidArticle: when an article is not right; nothing is written then.
        BuildFailed: when libzim cannot write.
        OSError: when the folder of ``target`` cannot be written.
    """
    with _lock(target):
        return _build(articles, target)


def ensure_sample(target: Path, articles: Path = ARTICLES) -> Path:
    """``target``, built first when it is absent, damaged or made from other sources than ``articles`` holds now.

    Safe when several processes ask at once: one builds, the others wait and use its file. Blocks; takes about a second
    when it builds, some milliseconds otherwise.

    Raises:
        InvalidArticle, BuildFailed, OSError: as ``build_zim``.
    """
    digest = sources_digest(articles)
    if _stored_digest(target) != digest:
        with _lock(target):
            if _stored_digest(target) != digest:
                _build(articles, target)
    return target


def sources_digest(articles: Path) -> str:
    """SHA-256 over the names and bytes of the articles and of the two modules that shape the file."""
    digest = hashlib.sha256()
    module = Path(__file__)
    for file in (*sorted(articles.glob("*.md")), module, module.with_name("markdown_articles.py")):
        content = file.read_bytes()
        digest.update(f"{file.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _build(articles: Path, target: Path) -> BuildReport:
    started = time.monotonic()
    digest = sources_digest(articles)
    sources = read_articles(articles)
    names = {name: entry_path(name) for article in sources for name in (article.title, *article.redirects)}
    rendered = [render(article, names) for article in sources]
    pages = [[article.entry, article.title, text] for article, (text, _) in zip(sources, rendered, strict=True)]
    redirects = [[names[name], name, article.entry] for article in sources for name in sorted(article.redirects)]
    main = MAIN_TITLE if MAIN_TITLE in names else sources[0].title
    job = {"pages": pages, "redirects": redirects, "main": names[main], "metadata": {**METADATA, DIGEST_KEY: digest}}
    size_bytes = _replace_by_child(target, job)
    return BuildReport(
        target=target,
        articles=len(sources),
        redirects=len(redirects),
        disambiguations=sum(article.disambiguation for article in sources),
        links=sum(len(links) for _, links in rendered),
        words=sum(len(article.body.split()) for article in sources),
        size_bytes=size_bytes,
        seconds=time.monotonic() - started,
    )


def _replace_by_child(target: Path, job: Mapping[str, object]) -> int:
    """Have a child process write the ZIM beside ``target``, then rename it into place; returns its size in bytes.

    A child, because libzim prints its progress on the process's standard output and cannot be told not to: here that
    would run through whatever the application is drawing on its terminal.
    """
    folder = target.with_name(f".{target.name}.building")
    shutil.rmtree(folder, ignore_errors=True)  # Left by a build that was killed; the lock says that nobody is at it.
    folder.mkdir()
    try:
        fresh = folder / f"{os.getpid()}.zim"  # Ours alone, even if the child of a killed build is still writing.
        command = [sys.executable, "-m", "tools.encyclopaedia", "--write-pages", str(fresh.resolve())]
        child = subprocess.run(command, input=json.dumps(job).encode(), capture_output=True, cwd=ROOT, check=False)
        if child.returncode or not fresh.is_file():
            last = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise BuildFailed(f"{target}: libzim did not write it ({last or f'exit code {child.returncode}'})")
        with fresh.open("rb") as file:
            os.fsync(file.fileno())  # The name must never point to content that a power cut would lose.
        size_bytes = fresh.stat().st_size
        fresh.replace(target)
        return size_bytes
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_zim(target: Path, job: Mapping[str, Any]) -> None:
    from libzim.writer import Creator, Hint, Item, StringProvider  # Loads libzim and Xapian.

    class HtmlItem(Item):  # type: ignore[misc, unused-ignore]  # libzim counts as untyped in pyproject.toml.
        def __init__(self, path: str, title: str, text: str) -> None:
            super().__init__()
            self._path, self._title, self._text = path, title, text

        def get_path(self) -> str:
            return self._path

        def get_title(self) -> str:
            return self._title

        def get_mimetype(self) -> str:
            return "text/html"

        def get_hints(self) -> dict[Hint, int]:
            return {Hint.FRONT_ARTICLE: True}

        def get_contentprovider(self) -> StringProvider:
            return StringProvider(self._text)

    creator = Creator(target)
    creator.config_indexing(True, "en")
    creator.config_nbworkers(1)  # One worker keeps the order of the clusters, and is enough for a megabyte.
    with creator:
        creator.set_mainpath(job["main"])
        creator.add_illustration(48, icon())
        for name, value in job["metadata"].items():
            creator.add_metadata(name, value)
        for path, title, text in job["pages"]:
            creator.add_item(HtmlItem(path, title, text))
        for path, title, destination in job["redirects"]:
            creator.add_redirection(path, title, destination, {Hint.FRONT_ARTICLE: True})


def icon(side: int = 48) -> bytes:
    """The Mandelbrot set as a grey PNG (RFC 2083) of ``side`` by ``side`` pixels; openZIM asks for 48 by 48."""
    rows = bytearray()
    for row in range(side):
        rows.append(0)  # Filter type «none».
        for column in range(side):
            z, c, steps = 0j, complex(-2.1 + 2.7 * column / side, 1.35 - 2.7 * row / side), 0
            while abs(z) <= 2 and steps < 50:
                z, steps = z * z + c, steps + 1
            rows.append(255 - 5 * steps)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(rows), 9)),
        (b"IEND", b""),
    )
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _stored_digest(target: Path) -> str:
    """The digest that the ZIM carries; empty when there is no file or no whole one."""
    if not target.is_file():
        return ""
    from libzim.reader import Archive

    try:
        return bytes(Archive(target).get_metadata(DIGEST_KEY)).decode(errors="replace")
    except RuntimeError:  # libzim's only error: not a ZIM, cut short, or without this key. All mean: build it.
        return ""


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Be the only process that builds ``target``; the system frees the lock of a process that dies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``python -m tools.encyclopaedia OUT.zim``; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.encyclopaedia", description="Build the sample encyclopaedia."
    )
    parser.add_argument("target", type=Path, metavar="OUT.zim")
    parser.add_argument(
        "--articles", type=Path, default=ARTICLES, help="folder of Markdown files (default: %(default)s)"
    )
    parser.add_argument("--write-pages", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.write_pages:
        _write_zim(options.target, json.load(sys.stdin))
        return 0
    try:
        report = build_zim(options.articles, options.target)
    except (LuminaError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{report.target}: {report.articles} articles ({report.disambiguations} of them disambiguation pages), "
        f"{report.redirects} redirects, {report.links} links, {report.words} words, "
        f"{report.size_bytes / 1000:.0f} kB in {report.seconds:.2f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
