"""Connections that let themselves be cancelled, and a pool of them; a command costs less than on redis-py's own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.asyncio import BlockingConnectionPool, Connection
from redis.connection import HiredisRespSerializer
from redis.exceptions import TimeoutError as RedisTimeoutError

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    _Base = AbstractConnection
else:
    _Base = object

_PACKER = HiredisRespSerializer()
LARGE_BYTES = 100_000
"""From here on a value is packed by redis-py, which sends it as it is; C copies it, in 2 ms for a megabyte."""


class _Cancellable(_Base):
    """Sends under ``asyncio.timeout``.

    redis-py sends under ``asyncio.wait_for``, which until Python 3.12 returns the result and drops the cancellation
    when both come at once (python/cpython#86296). A stopped worker would go on with its task.
    """

    async def connect(self) -> None:
        """Connects unless it is connected."""
        if not self.is_connected:
            await super().connect()  # type: ignore[no-untyped-call]  # redis-py's has no types

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Sends what ``pack_command`` made; without a timer where the socket takes it at once."""
        is_ready = self.is_connected and not (check_health and self._is_check_due())
        if is_ready and self._writer is not None and not isinstance(command, (str, bytes)):
            self._writer.writelines(command)
            if not self._writer.transport.get_write_buffer_size():
                return
            command = ()
        limit_s, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(limit_s):
                await super().send_packed_command(command, check_health)
        except TimeoutError:
            await self.disconnect(nowait=True)
            raise RedisTimeoutError("Timeout writing to socket") from None
        finally:
            self.socket_timeout = limit_s

    def _is_check_due(self) -> bool:
        interval_s = self.health_check_interval
        return bool(interval_s) and asyncio.get_running_loop().time() > self.next_health_check

    def pack_command(self, *args: Any) -> list[bytes]:
        """Pack as redis-py's blocking connections do; in Python it takes a millisecond for a thousand keys."""
        if any(type(arg) is bytes and len(arg) >= LARGE_BYTES for arg in args):
            return super().pack_command(*args)
        packed: list[bytes] = _PACKER.pack(*args)
        return packed


class Pool(BlockingConnectionPool):
    """Takes and gives back at once where nobody waits; redis-py goes through a condition, a lock and a timer."""

    def __init__(self, *, connection_class: type[AbstractConnection] = Connection, **options: Any) -> None:
        cancellable = type("Cancellable", (_Cancellable, connection_class), {})
        super().__init__(connection_class=cancellable, **options)
        self._waiting = 0

    async def get_connection(self, command_name: str | None = None, *keys: Any, **options: Any) -> Any:
        """A connected connection; waits up to ``timeout`` seconds for one."""
        if self._in_maintenance or not self.can_get_connection():
            self._waiting += 1
            try:
                return await super().get_connection()  # type: ignore[no-untyped-call]  # redis-py's has no types
            finally:
                self._waiting -= 1
        connection: Any = self.get_available_connection()  # type: ignore[no-untyped-call]  # redis-py's has no types
        try:
            await self.ensure_connection(connection)
        except BaseException:  # whatever it is, cancellation too, passes on and gives the connection back
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: Any) -> None:
        """Takes a connection back."""
        if self._waiting or self._in_maintenance or connection.should_reconnect():
            await super().release(connection)
        else:
            self._in_use_connections.remove(connection)
            self._available_connections.append(connection)
