"""What `lumina ask` takes beside the model and the network: ``python -m benchmarks.whole [--short]``.

A question with a crawl of the sample encyclopaedia (read, index, answer, summarise), then another question from memory.
The embedding model is the real one; the chat model takes a second to answer, the encyclopaedia 0.2 s a request, as
hosted ones do. Everything else is as `lumina ask` has it, opened before (`startup` measures that).

*Limit*: the time in which the chat model, an urgent embedding or a request was under way in Lumina's own run; what is
embedded behind the answer, for which nobody waits, does not count. *Peer*: the same steps as a plain LangChain script:
the same pages of the same slow encyclopaedia, RecursiveCharacterTextSplitter's defaults for passages of this size,
InMemoryVectorStore with the same embedding model, one call of the chat model for the answer, a map and reduce for the
summary beside it.
Nothing of it is kept, planned, cited by revision, or streamed.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from loguru import logger
from pydantic import PrivateAttr

from agents.spec import RunRequest
from agents.summarise import PART_CHARS
from benchmarks.figures import Figures
from benchmarks.harness import Work, add_peers, finish, options, peers, rounds_of, take_turns
from benchmarks.parallel import Late
from graphs.runs import Runner, new_task_id
from models.chat import Chat
from models.embedding_engine import Engine
from models.embedding_model import DEFAULT_MODEL, Matrix
from models.embeddings import Embedder
from models.pair_states import Pair, PairStates
from models.token_states import TokenStates
from services import ABANDONED, open_runner
from settings import load_settings
from tools.encyclopaedia import ensure_sample
from tools.splitter import MAX_CHARS, sentences
from tools.wikipedia.opening import open_source
from tools.wikipedia.source import WikiSource

EXPECTATION = (
    "a crawl of 30 pages costs half a second of parsing, splitting, indexing and checkpoints beside some three seconds "
    "of model and network: 15 %; from memory 5 %; the plain script waits for every passage to be embedded and is "
    "several times slower with a crawl, and as fast from memory"
)
TOPIC = "Mandelbrot set"
FIRST = "Who proved that the Mandelbrot set is connected?"
SECOND = "When was the first picture of the Mandelbrot set published?"
CHAT_S, REQUEST_S = 1.0, 0.2
CRAWLED, REMEMBERED = "with a crawl", "from memory"


class Clock:
    """How long at least one of several things was under way."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.times = 0
        self._under_way = 0
        self._since = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        if not self._under_way:
            self._since = time.perf_counter()
        self._under_way += 1
        self.times += 1
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self.seconds += time.perf_counter() - self._since


class HostedChat(BaseChatModel):
    """Takes a second, and then says the first two sentences of what it was shown."""

    _clock: Clock = PrivateAttr()

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    @property
    def _llm_type(self) -> str:
        return "hosted"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError("asked on the event loop only")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._clock.running():
            await asyncio.sleep(CHAT_S)
        shown = str(messages[-1].content)
        said = " ".join(shown[start:end] for start, end in sentences(shown)[:2])
        return ChatResult(generations=[ChatGeneration(message=AIMessage(said))])


class TimedEmbedder(Embedder):
    """The real one; what somebody waits for is on the clock."""

    def __init__(self, clock: Clock, engine: Engine) -> None:
        super().__init__(DEFAULT_MODEL, engine=engine)
        self._clock = clock

    async def encode(self, texts: Sequence[str], *, query: bool = False, urgent: bool | None = None) -> Matrix:
        task = asyncio.current_task()
        if task is not None and task.get_name() in ABANDONED:  # the indexer, behind the answer
            return await super().encode(texts, query=query, urgent=urgent)
        with self._clock.running():
            return await super().encode(texts, query=query, urgent=urgent)

    async def read_pairs(self, pairs: Sequence[Pair]) -> list[PairStates]:
        with self._clock.running():
            return await super().read_pairs(pairs)

    async def read_tokens(self, texts: Sequence[str]) -> list[TokenStates]:
        with self._clock.running():
            return await super().read_tokens(texts)


class Network(Late):
    """An encyclopaedia behind a network that takes its time, which is on the clock; reading the page is not."""

    def __init__(self, source: WikiSource, clock: Clock) -> None:
        super().__init__(source, REQUEST_S)
        self._clock = clock

    async def wait(self) -> None:
        with self._clock.running():
            await super().wait()


async def with_lumina(source: WikiSource, engine: Engine, max_nodes: int, read: list[str]) -> Mapping[str, float]:
    """Both questions; ``read`` gets the titles of the pages, for the peer."""
    clock, found = Clock(), dict[str, float]()
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(data_dir=Path(folder) / "data", redis_url=None)
        opened = open_runner(
            settings,
            source=Network(source, clock),
            chat=Chat.from_model(HostedChat(clock)),
            embedder=TimedEmbedder(clock, engine),
        )
        async with opened as runner:
            for label, question in ((CRAWLED, FIRST), (REMEMBERED, SECOND)):
                clock.seconds, clock.times = 0.0, 0
                began = time.perf_counter()
                results = await ask(runner, question, max_nodes)
                seconds = time.perf_counter() - began
                found |= {
                    f"{label}, s": seconds,
                    f"{label}, model and network alone, s": clock.seconds,
                    f"{label}, outside model and network, %": 100 * (1 - clock.seconds / seconds),
                }
                read[:] = read or results[f"crawled[{TOPIC}]"]["titles"]
                await embedded(runner)
    return found


async def ask(runner: Runner, question: str, max_nodes: int) -> dict[str, Any]:
    """One run to its end; what its agents found."""
    request, task_id = (
        RunRequest(intent="wiki_qa", message=question, topics=[TOPIC], max_nodes=max_nodes),
        new_task_id(),
    )
    done: dict[str, Any] = {}
    async for event in runner.stream(request, task_id):
        done = event.data
    assert done["outcome"]["status"] == "done", done["outcome"]
    assert done["reply"]["citations"], done["reply"]
    state = await runner.graph.aget_state({"configurable": {"thread_id": task_id}})
    results: dict[str, Any] = state.values["results"]
    return results


async def embedded(runner: Runner) -> None:
    """Wait until nothing is embedded behind the answer any more."""
    vectors = runner.context.vectors
    assert vectors is not None
    while await vectors.count(embedded=False):
        await asyncio.sleep(0.05)


PROMPT = ChatPromptTemplate.from_template("Answer from these passages:\n\n{passages}\n\nQuestion: {question}")
NOTE = ChatPromptTemplate.from_template("Summarise this part of an article about {topic}:\n\n{text}")
JOIN = ChatPromptTemplate.from_template("Join these notes on an article about {topic}:\n\n{text}")


async def plain_script(source: WikiSource, engine: Engine, titles: Sequence[str]) -> Mapping[str, float]:
    """Read, split, embed, ask and summarise side by side; then ask again, for the summary is there."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter  # one of the peers

    clock = Clock()
    wiki, model, embedder = Network(source, clock), HostedChat(clock), Embedder(DEFAULT_MODEL, engine=engine)
    splitter = RecursiveCharacterTextSplitter(chunk_size=MAX_CHARS, chunk_overlap=MAX_CHARS // 10)
    store, found = InMemoryVectorStore(embedder), dict[str, float]()

    async def answer(question: str) -> None:
        passages = await store.asimilarity_search(question, k=5)
        text = "\n\n".join(one.page_content for one in passages)
        await (PROMPT | model).ainvoke({"passages": text, "question": question})

    async def summarise(article: str) -> None:
        parts = RecursiveCharacterTextSplitter(chunk_size=PART_CHARS, chunk_overlap=0).split_text(article)
        notes = await (NOTE | model).abatch([{"topic": TOPIC, "text": part} for part in parts])
        await (JOIN | model).ainvoke({"topic": TOPIC, "text": "\n".join(str(note.content) for note in notes)})

    began = time.perf_counter()
    pages = [page for title in (titles[:1], titles[1:]) for page in (await wiki.fetch(title)).pages]
    whole = [
        Document("\n\n".join(section.text for section in page.sections), metadata={"title": page.title})
        for page in pages
    ]
    await store.aadd_documents(splitter.split_documents(whole))
    await asyncio.gather(answer(FIRST), summarise(whole[0].page_content))
    found[f"{CRAWLED}, s"] = time.perf_counter() - began
    began = time.perf_counter()
    await answer(SECOND)
    found[f"{REMEMBERED}, s"] = time.perf_counter() - began
    return found


async def main(figures: Figures, rounds: int, max_nodes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sample = await asyncio.to_thread(ensure_sample, Path(folder) / "sample.zim")
        engine, read = Engine(DEFAULT_MODEL), list[str]()
        await asyncio.wrap_future(engine.load())
        async with open_source(str(sample), contact="") as source:
            contenders: dict[str, Work] = {
                "lumina": partial(with_lumina, source, engine, max_nodes, read),
                **peers(figures, {"plain LangChain script": partial(plain_script, source, engine, read)}),
            }
            await take_turns(figures, contenders, rounds)
        await asyncio.to_thread(engine.close)


if __name__ == "__main__":
    given = options(__doc__, rounds=5).parse_args()
    add_peers()
    logger.remove()
    collected = Figures("whole", expectation=EXPECTATION)
    asyncio.run(main(collected, rounds_of(given), 8 if given.short else 30))
    finish(collected, given)
