"""What the steps share: which batches a key names, and that one batch's failure leaves the others be.

Belongs here: keys. Does not: a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.errors import VaewatchError
from pipeline.receipts import BatchReceipt

RANGE = ".."
Say = Callable[[str], None]


def matches(key: str | None, batch_id: str) -> bool:
    """Whether a key names a batch: its id, "first..last", or None for all."""
    if key is None or key == batch_id:
        return True
    first, separator, last = key.partition(RANGE)
    return bool(separator) and first <= batch_id <= last


def guarded(batch_id: str, work: Callable[..., BatchReceipt], *arguments: Any) -> BatchReceipt:
    """One batch's failure, where a retry cannot help, does not keep the others from being done."""
    try:
        return work(*arguments)
    except VaewatchError as fault:
        if fault.retry_can_help:
            raise
        return BatchReceipt(batch_id, "failed", str(fault))
