"""Pages through LangChain's WikipediaLoader, links and revision too: ``with_wikipedia_loader.py API_URL TITLES``."""

import json
import sys
import time

import requests
import wikipedia
from langchain_community.document_loaders import WikipediaLoader

api, titles = sys.argv[1], json.loads(sys.argv[2])
wikipedia.wikipedia.API_URL = api
wikipedia.set_lang = lambda prefix: None  # the loader would point it at wikipedia.org again
sent = 0
send = requests.Session.send


def counted(self, *args, **kwargs):
    global sent
    sent += 1
    return send(self, *args, **kwargs)


requests.Session.send = counted
pages = 0
began = time.perf_counter()
for title in titles:
    loader = WikipediaLoader(title, load_max_docs=1, load_all_available_meta=True, doc_content_chars_max=10_000_000)
    try:
        documents = loader.load()
    except KeyError:  # its library fails on a page that links to no other site; such a page does not count for it
        continue
    for document in documents:
        assert document.page_content, title
        assert document.metadata["revision_id"], title
        pages += 1
seconds = time.perf_counter() - began
assert pages > len(titles) / 2, pages
print(json.dumps({"pages/s": pages / seconds, "requests a page": sent / pages}))
