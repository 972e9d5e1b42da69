"""The blocking half of a checkpointer, for notebooks and threads beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)

from memory.checkpoint_records import BadCheckpointRequest

T = TypeVar("T")


class BlockingTwins(BaseCheckpointSaver[str]):
    """Each blocking method runs its async twin on the saver's loop and waits for it, from any other thread.

    Raises:
        BadCheckpointRequest: when called on the loop's own thread, where it would wait for itself.
    """

    _loop: asyncio.AbstractEventLoop | None = None

    def _meet_loop(self) -> None:
        """Remembers the loop that the saver's connections live on: the first one that uses it."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        loop = self._loop
        try:
            is_inside = asyncio.get_running_loop() is loop
        except RuntimeError:
            is_inside = False
        if loop is None or is_inside or not loop.is_running():
            work.close()
            raise BadCheckpointRequest(
                "a blocking call needs the saver's event loop running in another thread: await the a… method here"
            )
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Blocking ``aput``."""
        return self._wait(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Blocking ``aput_writes``."""
        self._wait(self.aput_writes(config, writes, task_id, task_path))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Blocking ``aget_tuple``."""
        return self._wait(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Blocking ``alist``; one checkpoint is taken at a time."""
        saved = aiter(self.alist(config, filter=filter, before=before, limit=limit))

        async def following() -> CheckpointTuple | None:
            return await anext(saved, None)

        while (one := self._wait(following())) is not None:
            yield one

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Blocking ``aget_delta_channel_history``."""
        return self._wait(self.aget_delta_channel_history(config=config, channels=channels))

    def delete_thread(self, thread_id: str) -> None:
        """Blocking ``adelete_thread``."""
        self._wait(self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Blocking ``adelete_for_runs``."""
        self._wait(self.adelete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Blocking ``acopy_thread``."""
        self._wait(self.acopy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Blocking ``aprune``."""
        self._wait(self.aprune(thread_ids, strategy=strategy))
