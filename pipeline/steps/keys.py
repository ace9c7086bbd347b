"""What the steps share: which batches a key names, and that one batch's failure does not stop the others.

Belongs here: keys, and how one batch of several is reported. Does not: a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline import batch_keys
from pipeline.batch_keys import RANGE
from pipeline.errors import ConfigError, VaewatchError
from pipeline.steps.receipts import BatchReceipt, sentence

__all__ = ["RANGE", "Say", "check_key", "guarded", "matches", "say_batch", "width_of"]

Say = Callable[[str], None]


def check_key(dataset: str, key: str | None) -> None:
    """Refuse a range that ends before it begins: it names no batch.

    Raises:
        ConfigError: it does.
    """
    if fault := batch_keys.fault(key or ""):
        raise ConfigError(f"{dataset}: {fault}")


def matches(key: str | None, batch_id: str) -> bool:
    """Return whether a key names a batch: its id, "first..last", or None for all."""
    return key is None or batch_keys.names(key, batch_id)


def guarded(batch_id: str, work: Callable[..., BatchReceipt], *arguments: Any) -> BatchReceipt:
    """Do the work for one batch; a failure that a retry cannot help becomes its receipt.

    So the other batches still get done.
    """
    try:
        return work(*arguments)
    except VaewatchError as fault:
        if fault.retry_can_help:
            raise
        return BatchReceipt(batch_id, "failed", str(fault))


def width_of(batch_ids: Iterable[str]) -> int:
    """Return the width of batch names reported below one another; 0 for one alone."""
    widths = [len(batch_id) for batch_id in batch_ids]
    return max(widths) if len(widths) > 1 else 0


def say_batch(say: Say, receipt: BatchReceipt, width: int, details: Sequence[str]) -> None:
    """Say a line for a batch, so that hundreds can be read; below it what needs attention, if anything."""
    say(sentence(receipt, width))
    for detail in details:
        say(f"  {detail}")
