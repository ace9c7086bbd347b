"""How many cores a computation uses, without its result depending on that number.

A kernel that splits its work over threads may add in another order and round differently. So every kernel
runs on one thread, and independent pieces of work run in parallel instead.

Also here, because the same callers want it: freed memory stays with the process (``keep_freed_memory``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_n_inside = 0
_n_before = 1


def keep_freed_memory() -> None:
    """Have glibc keep the memory of freed tensors for the next ones; without effect under other allocators.

    By default it maps anything above 128 KiB afresh and the kernel clears each page on first use, which takes
    longer than the arithmetic on it. Freeing one block of almost 32 MiB, here untouched, moves that threshold
    up for the process (mallopt(3), M_MMAP_THRESHOLD).
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


@contextmanager
def one_thread_per_kernel() -> Iterator[int]:
    """Run torch's CPU kernels on one thread each; yields the number of threads that were allowed before.

    The setting is the process's, so overlapping uses share it and the last to leave restores it. A thread
    that already ran kernels keeps its own number until it enters here; threads started inside inherit the 1.
    """
    global _n_inside, _n_before
    with _lock:
        if _n_inside == 0:
            _n_before = torch.get_num_threads()
        _n_inside += 1
        n_before = _n_before
        torch.set_num_threads(1)
    keep_freed_memory()
    try:
        yield n_before
    finally:
        with _lock:
            _n_inside -= 1
            torch.set_num_threads(_n_before if _n_inside == 0 else 1)
