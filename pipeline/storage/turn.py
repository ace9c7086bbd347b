"""One process at a time: a file that is locked while somebody is at work.

Belongs here: waiting for one's turn, and who is waited for. Does not: what is done then, or which file it is
(installation.py). The system holds the lock, not the file's content: a process that dies, however it does,
lets go of it.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from pipeline.errors import StorageFailed


@contextmanager
def turn(file: Path, waits: Callable[[str], None]) -> Iterator[None]:
    """Hold a file's lock.

    On a disk that has no locks nobody waits.

    Args:
        waits: where another process holds it, told who that is and since when, before waiting.

    Raises:
        StorageFailed: the file cannot be opened.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        held = file.open("ab+", buffering=0)
    except OSError as fault:
        raise StorageFailed(f"cannot open {file}: {fault.strerror}") from fault
    with held:
        _wait(held, waits)
        yield


def _wait(held: FileIO, waits: Callable[[str], None]) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.seek(0)
        waits(held.read().decode() or "just begun")
        fcntl.flock(held, fcntl.LOCK_EX)
    except OSError:
        return
    me = f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    with suppress(OSError):  # a full disk has worse to tell
        held.truncate(0)
        held.write(me.encode())
