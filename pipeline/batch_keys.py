"""What names batches: a batch_id, or a range of them, "first..last".

Belongs here: what such a key names, and which is none. Does not: what a batch_id looks like
(incoming/batches.py).
"""

from __future__ import annotations

RANGE = ".."


def fault(key: str) -> str:
    """Say what is wrong with a key; empty for a good one."""
    first, separator, last = key.partition(RANGE)
    if separator and first > last:
        return f"the range {key} ends before it begins, so no batch is in it; turn it round: {last}{RANGE}{first}"
    return ""


def names(key: str, batch_id: str) -> bool:
    """Return whether a key names a batch. Ranges go by name, whatever the batches' days."""
    if key == batch_id:
        return True
    first, separator, last = key.partition(RANGE)
    return bool(separator) and first <= batch_id <= last
