"""An iterator that works ahead in a thread of its own.

Belongs here: handing items over, errors included, and stopping when nobody wants more. Does not: what the
items are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")
_LOOK = 0.1  # seconds between checks that somebody still wants items


def ahead(items: Iterator[T], n: int) -> Iterator[T]:
    """Yield the items while a thread makes up to n of them in advance.

    An error is raised where the item would have been.
    """
    made: Queue[tuple[T | None, BaseException | None]] = Queue(n)
    unwanted = Event()

    def hand(item: T | None, fault: BaseException | None) -> None:
        while not unwanted.is_set():
            with suppress(Full):
                made.put((item, fault), timeout=_LOOK)
                return

    def make() -> None:
        try:
            for item in items:
                hand(item, None)
                if unwanted.is_set():
                    return
            hand(None, None)
        except BaseException as fault:  # noqa: BLE001  # raised again in the consumer
            hand(None, fault)

    maker = Thread(target=make, name="vaewatch-ahead", daemon=True)
    maker.start()
    try:
        while True:
            item, fault = made.get()
            if fault is not None:
                raise fault
            if item is None:
                return
            yield item
    finally:
        unwanted.set()
        with suppress(Empty):
            while True:
                made.get_nowait()
        maker.join()
