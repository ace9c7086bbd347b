"""What the server loads while somebody reads the list, so that the record they open next finds it loaded.

Belongs here: when, and that it happens once. Does not: what is loaded (review/versions.py).
"""

from __future__ import annotations

from threading import Thread

from fastapi import Request

from pipeline.review import queue
from pipeline.review.versions import warm


def begin(request: Request) -> None:
    """Start to load beside the answer to this request: once per process, and not before a model serves.

    The process waits for the thread at exit: it must not end halfway through an import of torch.
    """
    state = request.app.state
    if state.is_warm:
        return
    here = state.here
    serves = (name for name in sorted(queue.datasets(here.ledger)) if here.ledger.serving_version(name))
    if (dataset := next(serves, None)) is not None:
        state.is_warm = True
        Thread(target=warm, args=(here, dataset), name="warm").start()
