"""Opens every service that Lumina runs on, once, in order, and closes them in the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from loguru import logger
from redis.asyncio import Redis

from agents.context import Context
from graphs.application import Application, load_application
from graphs.limits import RateLimits, limits_of
from graphs.masterchat import build_masterchat
from graphs.runs import Runner
from graphs.scheduler import LOCK_NAME, Scheduler
from graphs.standing import StandingGoals
from graphs.tasks import KINDS, take_tasks
from memory import keys
from memory.batched_events import BatchedEvents
from memory.buckets import TokenBuckets
from memory.bulk_consumers import BulkConsumer
from memory.checkpoints import RedisSaver
from memory.consumers import Consumer
from memory.conversations import Conversations
from memory.events import EventStore, open_events
from memory.fan_out import FanOut
from memory.graph import GraphStore
from memory.holders import holding
from memory.indexer import Indexer
from memory.kafka import KafkaForwarder, forget
from memory.library import Library
from memory.locks import Lock
from memory.log_ring import LogRing
from memory.message_index import VectorMessageIndex
from memory.redis_server import open_redis
from memory.streams import Delivered, Streams
from memory.tasks import TaskQueue
from memory.vectors import VectorStore, open_vectors
from memory.way_history import HistoryKeeper
from models.budget import Budget
from models.chat import Chat, ChatConfig, open_chat
from models.embeddings import Embedder
from models.prices import PriceTable, read_prices
from serving.health import report
from serving.roles import ALL, Role
from settings import DEFAULT_OWNER, InvalidSettings, Settings
from tools.recall import Recall
from tools.span_reader import span_reader
from tools.token_match import token_matcher
from tools.wikipedia.opening import open_source
from tools.wikipedia.source import NoSource, WikiSource

CHECKPOINT_TTL_S = 7 * 24 * 3600
"""How long the checkpoints of a task are kept after its last step."""

DRAIN_S = 2.0
"""How long background work may take to finish what it has begun, when everything is closed."""
CLOSE_S = 0.3
"""How long the embedding thread may take; what it has not embedded is taken up at the next start."""

INGEST_BATCH = 5_000
"""Events that DuckDB takes in at once: it likes large batches."""


@asynccontextmanager
async def open_runner(
    settings: Settings,
    *,
    owns_files: bool = True,
    role: Role = ALL,
    application: Application | None = None,
    source: WikiSource | None = None,
    chat: Chat | None = None,
    embedder: Embedder | None = None,
) -> AsyncIterator[Runner]:
    """The graph on open services.

    Args:
        settings: Which services, and where.
        owns_files: Open the DuckDB file and the vectors' folder, and do the background work that belongs to them
            (taking in events, indexing passages). False in a worker beside a server.
        role: The part of Lumina that runs on them, for which alone things are opened.
        application: What was loaded of the goal file; it is loaded here when left out.
        source: Instead of the configured encyclopaedia; whoever made it closes it.
        chat: Instead of the configured chat model.
        embedder: Instead of the configured embedding model.

    Raises:
        LuminaError: one line on what is wrong, before anything was started where that can be known.
    """
    check_role(settings, role)
    owns_events = owns_files and role.events
    owns_folder = owns_files and role.retrieves and settings.qdrant_url is None
    indexes = owns_files and role.takes_passages(settings.qdrant_url is not None)
    registry, goals = application or load_application(settings.goal_file)
    prices = PriceTable(read_prices(settings.llm_prices) if settings.llm_prices else None)
    per_minute = limits_of(registry, settings.rate_limit_overrides(registry))
    async with AsyncExitStack() as stack:
        settings.make_data_dir()
        if source is None and not role.reads:
            source = NoSource()
        if source is None:
            opened = open_source(await wiki_source(settings), contact=settings.wiki_contact)
            source = await stack.enter_async_context(opened)
        url = settings.redis_url.get_secret_value() if settings.redis_url else None
        redis = await stack.enter_async_context(open_redis(url, settings.data_dir))
        held = [name for name, held in (("events", owns_events), ("vectors", owns_folder)) if held and url]
        for name in held:  # the embedded Redis lies in the same DATA_DIR as the files, whose own locks do
            await stack.enter_async_context(holding(redis, name, settings.data_dir))
        streams = Streams(redis)
        await streams.setup()
        if embedder is None:
            embedder = Embedder(settings.embedding_model, redis=redis, cache_size=settings.embedding_cache_size)
            stack.push_async_callback(embedder.close, CLOSE_S)
        said = await stack.enter_async_context(BatchedEvents(streams))
        budget = Budget(redis, limit_usd=settings.llm_budget_usd, prices=prices)
        if chat is None:
            chat = await stack.enter_async_context(open_chat(chat_config(settings), budget=budget))
        library = Library(redis)
        events = await stack.enter_async_context(_events(settings)) if owns_events else None
        opens_vectors = role.retrieves and (owns_files or settings.qdrant_url is not None)
        vectors, messages = await _open_vectors(stack, settings, embedder) if opens_vectors else (None, None)
        jobs = _ingest_jobs(redis, events) if events else {}
        messages_index = None
        if messages:
            behind = Indexer(messages, embedder, library)
            messages_index = VectorMessageIndex(messages, embedder, behind.wake)
            jobs["embed messages"] = behind.run_embedding
        if vectors and indexes:
            member = "indexer-1" if role.events else f"indexer-{socket.gethostname()}-{os.getpid()}"
            jobs |= _index_jobs(redis, Indexer(vectors, embedder, library), member)
        context = Context(
            redis=redis,
            streams=streams,
            checkpoints=RedisSaver(redis, ttl_s=CHECKPOINT_TTL_S),
            library=library,
            graph=GraphStore(redis, streams),
            conversations=Conversations(redis, messages_index, tell=said.add),
            source=source,
            chat=chat,
            embedder=embedder,
            budget=budget,
            vectors=vectors,
            recall=Recall(vectors, embedder, span_reader(embedder), token_matcher(embedder)) if vectors else None,
            events=events,
        )
        await stack.enter_async_context(_background(jobs))
        graph = build_masterchat(registry, goals, checkpoints=context.checkpoints)
        yield Runner(graph, goals, context, registry, RateLimits(TokenBuckets(redis), per_minute))


@asynccontextmanager
async def open_tasks(
    runner: Runner, settings: Settings, role: Role = ALL
) -> AsyncIterator[tuple[TaskQueue, Scheduler | None]]:
    """The task queue, with a worker that takes tasks from it and the scheduler of the standing goals, as the role has.

    Without the event store there is no scheduler, and without vectors the worker leaves the kinds that retrieve.
    """
    context = runner.context
    queue = TaskQueue(context.redis)
    kinds = [name for name, kind in KINDS.items() if context.recall or not kind.retrieves]
    jobs: dict[str, Job] = {}
    if role.takes_tasks(settings.qdrant_url is not None):
        jobs["worker"] = lambda stop: take_tasks(runner, queue, kinds, stop=stop)
    scheduler = None
    if context.events:
        standing = StandingGoals(runner.goals.standing, context.events, queue, context.streams)
        scheduler = Scheduler(standing, Lock(context.redis, LOCK_NAME), settings.plan_cron)
        jobs["scheduler"] = scheduler.run
        jobs["report"] = partial(report, context, scheduler)
    async with _background(jobs):
        yield queue, scheduler


@asynccontextmanager
async def open_fan_out(runner: Runner, settings: Settings) -> AsyncIterator[FanOut]:
    """What tells the events of the streams, and of this process's log where there is one owner, to who follows them."""
    context = runner.context
    owners = set(settings.api_keys().values()) or {DEFAULT_OWNER}
    logs = LogRing(*owners, secrets=settings.secrets()) if len(owners) == 1 else None
    fan_out = FanOut(context.redis, events=context.events, logs=logs)
    with logs.listening(settings.log_level) if logs else contextlib.nullcontext():
        async with _background({"fan-out": fan_out.run}):
            yield fan_out


@asynccontextmanager
async def open_kafka(runner: Runner, settings: Settings) -> AsyncIterator[KafkaForwarder | None]:
    """What passes events on to Kafka, where that is switched on."""
    redis = runner.context.redis
    if not settings.enable_kafka:
        await forget(redis)
        yield None
        return
    forwarder = KafkaForwarder(redis, settings.kafka_bootstrap_servers)
    async with _background({"kafka": forwarder.run}):
        yield forwarder


def check_role(settings: Settings, role: Role) -> None:
    """Say what a role lacks.

    Raises:
        InvalidSettings: it needs what is not set.
    """
    if role.retrieves and not role.chats and settings.qdrant_url is None:
        raise InvalidSettings(
            f"--role {role.name} needs QDRANT_URL: without a Qdrant server the hub holds the vectors and indexes itself"
        )


async def wiki_source(settings: Settings) -> str:
    """The configured encyclopaedia, or the sample, built when it is not there."""
    if settings.wiki_source:
        return settings.wiki_source
    from tools.encyclopaedia import ensure_sample  # needs libzim, and only here

    return str(await asyncio.to_thread(ensure_sample, settings.data_dir / "sample.zim"))


@asynccontextmanager
async def _events(settings: Settings) -> AsyncIterator[EventStore]:
    async with open_events(settings.data_dir / "events.duckdb") as events:
        yield events


async def _open_vectors(
    stack: AsyncExitStack, settings: Settings, embedder: Embedder
) -> tuple[VectorStore, VectorStore]:
    """The passages and the messages."""
    dimensions = await embedder.find_dimensions()
    indexes = {"passages": ("owner", "source", "title", "revision"), "messages": ("owner", "conversation_id")}
    opened = [
        await stack.enter_async_context(
            open_vectors(
                settings.qdrant_url,
                settings.data_dir / "vectors",
                collection=name,
                dimensions=dimensions,
                model=embedder.model_name,
                payload_indexes=payload_indexes,
            )
        )
        for name, payload_indexes in indexes.items()
    ]
    return opened[0], opened[1]


def chat_config(settings: Settings) -> ChatConfig:
    """What the settings say of chat models."""
    return ChatConfig(
        provider=settings.llm_provider,
        ollama_url=settings.ollama_url,
        ollama_model=settings.ollama_model,
        mistral_api_key=settings.mistral_api_key,
        mistral_model=settings.mistral_model,
        openai_api_key=settings.openai_api_key,
        openai_base_url=settings.openai_base_url,
        openai_model=settings.openai_model,
        temperature=settings.llm_temp,
        data_dir=settings.data_dir,
    )


ABANDONED = frozenset({"embed", "embed messages"})
"""Jobs whose work is kept track of in the store, so that they need not finish a batch."""

Job = Callable[[asyncio.Event], Awaitable[None]]
"""Runs until the event is set, then finishes what it has begun."""


def _ingest_jobs(redis: Redis, events: EventStore) -> dict[str, Job]:
    keeper = HistoryKeeper(redis, events)
    take_steps = keeper.watching(events.ingester(keys.PLANNER_STREAM))
    ingests = [
        BulkConsumer(
            redis, stream, "masterchat", "mc", events.ingester(stream), events.bulk_ingester(stream), batch=INGEST_BATCH
        )
        for stream in (keys.GRAPH_STREAM, keys.TASKS_STREAM)
    ]
    return {
        **{f"ingest {ingest.stream}": ingest.run for ingest in ingests},
        f"ingest {keys.PLANNER_STREAM}": Consumer(
            redis, keys.PLANNER_STREAM, "masterchat", "mc", take_steps, batch=INGEST_BATCH
        ).run,
        "learn costs": keeper.run,
        "planner log": Consumer(redis, keys.PLANNER_STREAM, "ui", "frontend", _seen).run,
    }


async def _seen(delivered: Sequence[Delivered]) -> None:
    """Viewers follow the planner's log without a group; this member lets the stream be trimmed behind them."""


def _index_jobs(redis: Redis, indexer: Indexer, member: str) -> dict[str, Job]:
    async def take(delivered: Sequence[Delivered]) -> None:
        await indexer.handle(delivered)

    taking = Consumer(redis, keys.PASSAGES_STREAM, "indexer", member, take, batch=16)
    return {"index": taking.run, "embed": indexer.run_embedding}


@asynccontextmanager
async def _background(jobs: Mapping[str, Job]) -> AsyncIterator[None]:
    """Run jobs until the block ends; one that breaks is logged with its name and does not end the others."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(_guard(name, job, stop), name=name) for name, job in jobs.items()]
    try:
        yield
    finally:
        stop.set()
        for task in tasks:
            if task.get_name() in ABANDONED:
                task.cancel()
        await _drain(tasks)


async def _guard(name: str, job: Job, stop: asyncio.Event) -> None:
    try:
        await job(stop)
    except Exception as error:  # this is the outermost frame of a background job
        logger.opt(exception=error).error("the background job «{}» broke", name)


async def _drain(tasks: Sequence[asyncio.Task[None]]) -> None:
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=DRAIN_S)
    for task in late:
        task.cancel()
    for task in late:
        with contextlib.suppress(asyncio.CancelledError):
            await task
