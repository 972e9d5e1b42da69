"""Opposites: whether a question asks for the contrary of what a sentence says.

Nearness of meaning does not tell «the largest» from «the smallest», nor «did» from «did not»: both are said of the same
things. A list of common opposites, the prefixes that deny and the words that deny find the plain cases.
"""

from __future__ import annotations

import re
from functools import lru_cache

DENIAL = re.compile(
    r"\b(?:not|never|no|none|neither|nor|without|cannot|except|unlike|fail(?:s|ed)?|refused?|lack(?:s|ed)?"
    r"|(?:is|are|was|were|do|does|did|has|have|had|can|could|would|should)nt)\b|n['’]t\b",
    re.IGNORECASE,
)
PREFIXES = ("un", "in", "im", "ir", "il", "dis", "non", "anti")
SHORTEST = 4
"""Letters of a word that a prefix may deny; shorter ones are parts of other words (in-to, un-it)."""

_PAIRS = """
more less, more fewer, most least, most fewest, many few, greater less, greater smaller, greater lesser, large small
larger smaller, largest smallest, big small, bigger smaller, biggest smallest, high low, higher lower, highest lowest
maximum minimum, majority minority, major minor, first last, first final, before after, earlier later, earliest latest
early late, previous next, increase decrease, increased decreased, increases decreases, increasing decreasing
increase reduce, increased reduced, increases reduces, rise fall, rose fell, rising falling, grow shrink, grew shrank
gain lose, gained lost, win lose, won lost, winner loser, winning losing, north south, northern southern, east west
eastern western, northeast southwest, northwest southeast, start end, started ended, starting ending, begin end
began ended, beginning end, old new, older newer, older younger, oldest youngest, oldest newest, young old
strong weak, stronger weaker, strongest weakest, strength weakness, fast slow, faster slower, fastest slowest
hot cold, warm cold, warmer cooler, warmer colder, long short, longer shorter, longest shortest, wide narrow
deep shallow, deeper shallower, deepest shallowest, thick thin, thicker thinner, heavy light, heavier lighter
heaviest lightest, rich poor, wealthy poor, common rare, common uncommon, always never, all none, inside outside
internal external, interior exterior, inner outer, above below, over under, upper lower, left right, near far
closest farthest, closest furthest, nearest farthest, same different, similar different, positive negative
male female, man woman, men women, public private, ancient modern, allow forbid, allow prevent, allowed forbidden
allowed prohibited, allowed prevented, accept reject, accepted rejected, support oppose, supported opposed
supporter opponent, supporters opponents, success failure, succeeded failed, true false, better worse, best worst
good bad, good evil, often rarely, often seldom, usually rarely, usually never, frequently rarely, buy sell
bought sold, import export, imported exported, enter leave, entered left, arrive leave, arrived left
create destroy, created destroyed, build destroy, built destroyed, add remove, added removed, include exclude
included excluded, including excluding, love hate, friend enemy, friends enemies, ally enemy, allies enemies
victory defeat, attack defend, attacked defended, offense defense, offensive defensive, war peace, birth death
born died, alive dead, living dead, ancestor descendant, ancestors descendants, cause prevent, caused prevented
encourage discourage, encouraged discouraged, expand contract, expand shrink, expanded shrank, natural artificial
simple complex, easy difficult, easy hard, even odd, finite infinite, lowest greatest, continue stop
continued stopped, keep lose, join leave, joined left, open closed, opened closed, push pull, absorb release
absorbed released, toxic harmless, safe dangerous, dry wet, summer winter, day night, front back, top bottom
forward backward, single multiple, with without, agree disagree, agreed disagreed, appear disappear
appeared disappeared, able unable, likely unlikely, attract repel, attracted repelled, raise lower, raised lowered
strengthen weaken, strengthened weakened, improve worsen, improved worsened, praise criticize, praised criticized
"""


@lru_cache(maxsize=1)
def _opposites() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for pair in re.split(r"[,\n]+", _PAIRS.strip()):
        one, other = pair.split()
        found.setdefault(one, set()).add(other)
        found.setdefault(other, set()).add(one)
    return found


def contrary(question: str, sentence: str) -> bool:
    """Whether the question denies what the sentence does not, or has the opposite of one of its words."""
    if DENIAL.search(question) and not DENIAL.search(sentence):
        return True
    asked, said = _words(question), _words(sentence)
    added, dropped = asked - said, said - asked
    opposites = _opposites()
    return any(dropped & opposites.get(word, set()) or _denied(word, dropped) for word in added)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _denied(word: str, others: set[str]) -> bool:
    """Whether one of the others is the word with a prefix that denies, or without it."""
    for prefix in PREFIXES:
        bare = word.removeprefix(prefix)
        if len(word) >= SHORTEST and prefix + word in others:
            return True
        if SHORTEST <= len(bare) < len(word) and bare in others:
            return True
    return False
