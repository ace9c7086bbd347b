"""A doorbell: tells Airflow that files have settled in a folder.

Belongs here: looking, cheaply, in the triggerer's event loop. Does not: what a batch is or whether it is due;
events can be merged and lost on their way, so the DAG that hears the bell lists the folder itself.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

REST_SHARE = 20  # looking may take one twentieth of the time, however large the folder has grown

Seen = tuple[str, int, int]  # path, size, mtime_ns


class SettledFiles(BaseEventTrigger):
    """Fires when a file that nobody writes to any more is new or has changed.

    It also fires once at the start if there are files at all, to find what settled while nobody looked.
    """

    def __init__(self, folder: str, settle_seconds: float, every: float = 5.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.folder, self.settle_seconds, self.every = folder, settle_seconds, every

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class by name, and its arguments: Airflow tells triggers apart by these."""
        arguments = {"folder": self.folder, "settle_seconds": self.settle_seconds, "every": self.every}
        return "dags.watcher.SettledFiles", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event per change, for ever."""
        known: set[Seen] = set()
        while True:
            began = time.monotonic()
            settled = set(await asyncio.to_thread(self._settled))
            took = time.monotonic() - began
            if fresh := settled - known:
                yield TriggerEvent({"folder": self.folder, "n_files": len(fresh)})  # type: ignore[no-untyped-call]
            known = settled
            await asyncio.sleep(max(self.every, REST_SHARE * took))

    def _settled(self) -> list[Seen]:
        before = time.time_ns() - int(self.settle_seconds * 1e9)
        return [seen for seen in _files(self.folder) if seen[2] <= before]


def _files(folder: str) -> Iterator[Seen]:
    try:
        entries = os.scandir(folder)
    except OSError:  # not there yet, or not any more: the DAG discover reports it, the bell stays silent
        return
    with entries:
        for entry in entries:
            if entry.name.startswith((".", "_")):
                continue
            try:
                if entry.is_dir():
                    yield from _files(entry.path)
                else:
                    stat = entry.stat()
                    yield entry.path, stat.st_size, stat.st_mtime_ns
            except OSError:  # gone between the listing and the look
                continue
