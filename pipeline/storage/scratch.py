"""Folders that one process works in, and whether a process that left one is gone.

Belongs here: their names. Does not: where they lie (installation.py, registry/fetching.py), or what is in
them. Several machines may share a home folder, and the number of a process says nothing on another machine:
what was made there is left alone for longer than anybody works.
"""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path
from uuid import uuid4

LONGEST_WORK = 7 * 86_400  # seconds
PATTERN = "*.*.*.tmp"


def own_name(purpose: str) -> str:
    """Return the name of a folder that no other process has, here or on another machine."""
    return f"{purpose}.{_machine()}.{os.getpid()}.{uuid4().hex[:8]}.tmp"


def is_abandoned(folder: Path) -> bool:
    """Return whether the process that made a folder, named by `own_name`, is gone.

    Of one that was made on another machine: whether that was longer ago than LONGEST_WORK.
    """
    *_, machine, pid, _, _ = folder.name.split(".")
    if machine == _machine():
        return not _is_alive(int(pid))
    try:
        return folder.stat().st_mtime < time.time() - LONGEST_WORK
    except FileNotFoundError:
        return False


def _machine() -> str:
    return re.sub("[^A-Za-z0-9-]", "-", socket.gethostname())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
