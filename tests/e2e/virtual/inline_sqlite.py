"""SQLite on the driver's own thread: nothing overtakes anything, and no turn of the event loop is spent on waiting."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import aiosqlite
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

_Task = tuple["asyncio.Future[Any] | None", Callable[[], Any]]


class _AtOnce:
    """Stands for the queue to a connection's thread: what is put in is done."""

    def put_nowait(self, task: _Task) -> None:
        future, function = task
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - it reaches whoever waits, as it would from the thread
            if future is not None:
                future.set_exception(error)
        else:
            if future is not None:
                future.set_result(result)


class _NoThread:
    def start(self) -> None:
        """There is none."""


class InlineConnection(aiosqlite.Connection):
    """An aiosqlite connection without its thread."""

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        work: Any = _AtOnce()
        thread: Any = _NoThread()
        self._tx, self._thread = work, thread


def run_inline(engine: AsyncEngine) -> None:
    """From now on the engine's connections have no threads; nothing is synced either, since nobody cuts the power."""
    event.listen(engine.sync_engine, "do_connect", _connect_inline)
    event.listen(engine.sync_engine, "connect", _unsynced)


def _connect_inline(_dialect: object, _record: object, _arguments: object, parameters: dict[str, Any]) -> None:
    parameters["async_creator_fn"] = _open


def _open(path: str, **options: Any) -> InlineConnection:
    return InlineConnection(lambda: sqlite3.connect(path, **options))


def _unsynced(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.close()
