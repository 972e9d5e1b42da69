"""Pages through wikipedia-api's asynchronous client, eight at a time: ``with_wikipedia_api.py API_URL TITLES_JSON``."""

import asyncio
import json
import sys
import time

from wikipediaapi import AsyncWikipedia

api, titles = sys.argv[1], json.loads(sys.argv[2])
AT_ONCE = 8
sent = 0


class Local(AsyncWikipedia):
    def _build_url(self, language):
        return api


async def count(request):
    global sent
    sent += 1


async def main():
    wiki = Local(user_agent="a benchmark on loopback", language="en", timeout=60.0, event_hooks={"request": [count]})
    left = iter(titles)

    async def read():
        for title in left:
            page = wiki.page(title)
            text, links, revision = await page.text, await page.links, await page.lastrevid
            assert text, title
            assert revision, title
            assert links is not None, title

    began = time.perf_counter()
    await asyncio.gather(*(read() for _ in range(AT_ONCE)))
    seconds = time.perf_counter() - began
    print(json.dumps({"pages/s": len(titles) / seconds, "requests a page": sent / len(titles)}))


asyncio.run(main())
