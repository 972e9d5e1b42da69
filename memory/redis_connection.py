"""Connections that let themselves be cancelled, and pack commands in C."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.connection import HiredisRespSerializer
from redis.exceptions import TimeoutError as RedisTimeoutError

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection, ConnectionPool

    _Base = AbstractConnection
else:
    _Base = object

_PACKER = HiredisRespSerializer()


class _Cancellable(_Base):
    """Sends under ``asyncio.timeout``.

    redis-py sends under ``asyncio.wait_for``, which until Python 3.12 returns the result and drops the cancellation
    when both come at once (python/cpython#86296). A stopped worker would go on with its task.
    """

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        limit_s, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(limit_s):
                await super().send_packed_command(command, check_health)
        except TimeoutError:
            await self.disconnect(nowait=True)
            raise RedisTimeoutError("Timeout writing to socket") from None
        finally:
            self.socket_timeout = limit_s

    def pack_command(self, *args: Any) -> list[bytes]:
        """Pack as redis-py's blocking connections do; in Python it takes a millisecond for a thousand keys."""
        packed: list[bytes] = _PACKER.pack(*args)
        return packed


def make_cancellable(pool: ConnectionPool) -> None:
    """Give a pool connections that pass cancellation on."""
    pool.connection_class = type("Cancellable", (_Cancellable, pool.connection_class), {})
