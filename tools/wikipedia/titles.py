"""Titles of MediaWiki pages: what is legal, and which titles are nearest to a misspelt one.

The rules are those of https://www.mediawiki.org/wiki/Manual:Page_title.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

MAX_TITLE_BYTES = 255
"""MediaWiki keeps a title in a column of 255 bytes of UTF-8."""

_FORBIDDEN = re.compile(r"[<>\[\]{}|\x00-\x1f\x7f\ufffd]|%[0-9A-Fa-f]{2}|&(?:\w+|#\w+);|~~~")
_SPACES = re.compile(r"[\s_\u00a0\u1680\u180e\u2000-\u200b\u2028\u2029\u202f\u205f\u3000]+")
_BIDI_MARKS = re.compile(r"[\u200e\u200f\u202a-\u202e]")
_RELATIVE = re.compile(r"^\.{1,2}$|^\.{1,2}/|/\.{1,2}/|/\.{1,2}$")
_NEAR_ENOUGH = 0.5
"""Least ``difflib`` ratio at which a title is still worth suggesting (one letter in two is shared)."""

_STOP_WORDS = frozenset(
    """a about after all also an and are as at be because been before being between both but by can could did do does
    during each for from had has have he her him his how i if in into is it its just many me more most much my no nor
    not of on one or other our out over own same she should so some such than that the their them then there
    these they this those through to too under until up us very was we were what when where which while who whom
    whose why will with would you your tell explain describe""".split()
)


def clean_title(title: str) -> str:
    """The title without section anchor, leading colon, underscores and superfluous spaces.

    The case of the first letter is left to the wiki, for some wikis distinguish it.
    """
    if title.isascii():
        return " ".join(title.partition("#")[0].replace("_", " ").split()).removeprefix(":").strip()
    text = _BIDI_MARKS.sub("", unicodedata.normalize("NFC", title))
    text = text.partition("#")[0]
    return _SPACES.sub(" ", text).strip().removeprefix(":").strip()


def why_invalid(title: str) -> str | None:
    """Why a cleaned title cannot be the title of a page; ``None`` when it can."""
    if not title:
        return "invalid title: empty"
    if found := _FORBIDDEN.search(title):
        return f"invalid title: {found[0]!r} is not allowed in a title"
    if _RELATIVE.search(title):
        return "invalid title: looks like a relative path"
    if (size := len(title.encode("utf-8", "replace"))) > MAX_TITLE_BYTES:
        return f"invalid title: {size} bytes of UTF-8, at most {MAX_TITLE_BYTES} are allowed"
    return None


def upper_first(title: str) -> str:
    """The title with a capital first letter, as most wikis keep it."""
    head = title[:1].upper()
    return (head if len(head) == 1 else title[:1]) + title[1:]


def content_words(text: str) -> list[str]:
    """The words of a question that carry its topic, in order, without duplicates."""
    words = re.findall(r"\w[\w'’.-]*\w|\w", text)
    return list(dict.fromkeys(word for word in words if word.casefold() not in _STOP_WORDS))


def phrases(text: str, limit: int = 50) -> list[str]:
    """Runs of one to four words of a question that may be the title of what it is about, the likeliest first.

    Longer runs come first, then those written with a capital letter, then longer words. Runs neither begin nor end
    with a word such as «the».
    """
    words = re.findall(r"\w[\w'’.-]*\w|\w", text)
    first = words[0] if words else ""
    runs: dict[str, tuple[int, bool, int]] = {}
    for count in range(min(4, len(words)), 0, -1):
        for start in range(len(words) - count + 1):
            run = words[start : start + count]
            if any(word.casefold() in _STOP_WORDS for word in (run[0], run[-1])):
                continue
            named = run[0][:1].isupper() and run[0] != first
            runs.setdefault(" ".join(run), (count, named, len(run[-1])))
    return sorted(runs, key=lambda run: runs[run], reverse=True)[:limit]


def with_letters_swapped(text: str) -> list[str]:
    """The longest word of a misspelt title with each pair of neighbouring letters exchanged; at most a dozen words."""
    word = max(content_words(text) or [text], key=len)[:13]
    swapped = (word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(1, len(word) - 1))
    return list(dict.fromkeys(other for other in swapped if other != word))


def likeness(text: str, title: str) -> float:
    """How alike two titles are, case and accents aside: 0 (nothing in common) to 1 (equal).

    The better of two ratios counts: of the whole titles, and of the best pair of words at a small discount, so that
    «Mandelbort» still finds «Benoît Mandelbrot».
    """
    wanted, found = _bare(text), _bare(title)
    whole = difflib.SequenceMatcher(None, wanted, found, autojunk=False).ratio()
    if not wanted or not found or (" " not in wanted and " " not in found):
        return whole
    longest = max(wanted.split(), key=len)
    by_word = max(difflib.SequenceMatcher(None, longest, word, autojunk=False).ratio() for word in found.split())
    return max(whole, 0.9 * by_word)


def nearest(text: str, candidates: Iterable[str], limit: int) -> list[str]:
    """Up to ``limit`` candidates that are like ``text``, the most alike first, ties in the order given."""
    scored = [(likeness(text, title), -position, title) for position, title in enumerate(dict.fromkeys(candidates))]
    return [title for score, _, title in sorted(scored, reverse=True)[:limit] if score >= _NEAR_ENOUGH]


def shrinking_prefixes(text: str) -> list[str]:
    """Beginnings of the words of a misspelt title, longest first, under which the right one is likely to be listed."""
    words = [text, *[word for word in content_words(text) if len(word) > 3]]
    lengths = [(word, n) for word in words for n in (len(word) * 3 // 4, len(word) // 2, 3, 2) if 2 <= n < len(word)]
    return list(dict.fromkeys(word[:n].strip() for word, n in sorted(lengths, key=lambda pair: -pair[1])))


def _bare(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.replace("_", " ").casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char))
