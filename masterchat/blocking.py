"""The same client for code that does not await: every call runs in an event loop of its own, in a thread.

So it works where a loop is running already, as in a notebook. Nothing is written twice: each method here is made of the
one that it stands for, with its parameters and its docstring.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from masterchat.chat import ChatStream
from masterchat.client import BASE_URL, MasterChat
from masterchat.exceptions import MasterChatError
from masterchat.records import Chunk, Citation, Recalled, Usage
from masterchat.resources import Conversations, Tasks

P = ParamSpec("P")
T = TypeVar("T")


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="masterchat", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of some work; Ctrl-C ends it."""
        if self._loop.is_closed():
            work.close()
            raise MasterChatError("this client is closed; make another one")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C too ends what runs on the other thread; it passes on
            future.cancel()
            raise

    def close(self) -> None:
        """End the thread."""
        if self._loop.is_closed():
            return
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Twin(Generic[T]):
    """Something that awaits, and the loop that it lives in."""

    def __init__(self, loop: _Loop, twin: T) -> None:
        self._loop, self._twin = loop, twin


def _blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    @functools.wraps(method)
    def call(self: _Twin[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(method(self._twin, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[Any, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Any, P], Generator[T, None, None]]:
    @functools.wraps(method)
    def call(self: _Twin[Any], /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return _iterate(self._loop, method(self._twin, *args, **kwargs))

    return call


def _iterate(loop: _Loop, items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    async def following() -> tuple[T] | None:
        async for item in items:
            return (item,)
        return None

    try:
        while (item := loop.run(following())) is not None:
            yield item[0]
    except GeneratorExit:
        loop.run(items.aclose())
        raise


class ChatStreamSync(_Twin[ChatStream]):
    """The events of one run, as they come; see ``ChatStream``."""

    text = _blocking(ChatStream.text)
    cancel = _blocking(ChatStream.cancel)
    close = _blocking(ChatStream.aclose)

    def __iter__(self) -> Iterator[Chunk]:
        async def following() -> Chunk | None:
            return await anext(self._twin.__aiter__(), None)

        while (chunk := self._loop.run(following())) is not None:
            yield chunk

    @property
    def task_id(self) -> str | None:
        """See ``ChatStream.task_id``."""
        return self._twin.task_id

    @property
    def citations(self) -> list[Citation]:
        """See ``ChatStream.citations``."""
        return self._twin.citations

    @property
    def result(self) -> dict[str, Any]:
        """See ``ChatStream.result``."""
        return self._twin.result

    @property
    def usage(self) -> Usage:
        """See ``ChatStream.usage``."""
        return self._twin.usage

    @property
    def recalled(self) -> list[Recalled]:
        """See ``ChatStream.recalled``."""
        return self._twin.recalled

    @property
    def conversation_id(self) -> str | None:
        """See ``ChatStream.conversation_id``."""
        return self._twin.conversation_id


class TasksSync(_Twin[Tasks]):
    """The task queue; see ``Tasks``."""

    submit = _blocking(Tasks.submit)
    get = _blocking(Tasks.get)
    list = _blocking(Tasks.list)
    cancel = _blocking(Tasks.cancel)
    retry = _blocking(Tasks.retry)
    wait = _blocking(Tasks.wait)
    events = _iterating(Tasks.events)


class ConversationsSync(_Twin[Conversations]):
    """Your conversations; see ``Conversations``."""

    list = _blocking(Conversations.list)
    get = _blocking(Conversations.get)
    delete = _blocking(Conversations.delete)


def _chatting(
    method: Callable[Concatenate[MasterChat, P], Coroutine[Any, Any, ChatStream]],
) -> Callable[Concatenate[Any, P], ChatStreamSync]:
    @functools.wraps(method)
    def call(self: _Twin[MasterChat], /, *args: P.args, **kwargs: P.kwargs) -> ChatStreamSync:
        return ChatStreamSync(self._loop, self._loop.run(method(self._twin, *args, **kwargs)))

    return call


class MasterChatSync(_Twin[MasterChat]):
    """A connection to a Lumina server for code that does not await; use it as a context manager. See ``MasterChat``."""

    tasks: TasksSync
    conversations: ConversationsSync

    def __init__(self, base_url: str = BASE_URL, **options: Any) -> None:
        """Nothing is sent yet.

        Args:
            base_url: Where the server is.
            options: The other arguments of ``MasterChat``.

        Raises:
            Unreachable: ``base_url`` is no address.
        """
        client = MasterChat(base_url, **options)
        super().__init__(_Loop(), client)
        self.tasks = TasksSync(self._loop, client.tasks)
        self.conversations = ConversationsSync(self._loop, client.conversations)

    chat = _chatting(MasterChat.chat)
    plan = _blocking(MasterChat.plan)
    planner_logs = _iterating(MasterChat.planner_logs)
    query = _blocking(MasterChat.query)
    health = _blocking(MasterChat.health)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread."""
        try:
            self._loop.run(self._twin.aclose())
        finally:
            self._loop.close()
