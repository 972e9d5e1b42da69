"""Templates that only the wiki understands, expanded many at a time and remembered."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from tools.wikipedia.api import Api, RefusedByWiki

_MARK = "⸨lumina {}⸩"
_MARKED = re.compile(r"⸨lumina (\d+)⸩\n?")
_MAX_TEMPLATES = 200
"""A request; a wiki limits the work that one expansion may cause ($wgExpensiveParserFunctionLimit is 100 to 500)."""
_MAX_BYTES = 50_000
"""A request's templates together; one that is larger alone is a box, not part of a sentence."""
_REMEMBERED = 4096


class Expansions:
    """Asks ``action=expandtemplates`` for what is not known yet (https://www.mediawiki.org/wiki/API:Expandtemplates)."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: OrderedDict[str, str] = OrderedDict()

    async def of(self, sources: Iterable[str]) -> dict[str, str] | None:
        """Template source → wikitext it expands to; ``None`` when the wiki does not expand templates."""
        wanted = list(dict.fromkeys(sources))
        found = {source: self._known[source] for source in wanted if source in self._known}
        try:
            for batch in _batches(source for source in wanted if source not in found):
                found |= await self._expand(batch)
        except RefusedByWiki:
            return None
        for source, text in found.items():
            self._known[source] = text
            self._known.move_to_end(source)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found

    async def _expand(self, batch: list[str]) -> dict[str, str]:
        text = "\n".join(f"{_MARK.format(number)}\n{source}" for number, source in enumerate(batch))
        answer = await self._api.ask(action="expandtemplates", prop="wikitext", text=text)
        parts = _MARKED.split(str((answer.get("expandtemplates") or {}).get("wikitext") or ""))
        return {batch[int(number)]: said.strip("\n") for number, said in zip(parts[1::2], parts[2::2], strict=True)}


def _batches(sources: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for source in sources:
        length = len(source.encode())
        if length > _MAX_BYTES:
            continue
        if batch and (len(batch) >= _MAX_TEMPLATES or size + length > _MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(source)
        size += length
    if batch:
        yield batch
