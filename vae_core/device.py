"""What a GPU asks for and a CPU does not: streams, running out of memory, kernels launched as one.

Belongs here: streams, recorded graphs, what fits where. Does not: arithmetic. ``stream``, ``room``, lanes and
``graph`` need a GPU; without one, the rest does the plain thing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

log = logging.getLogger(__name__)

_WARM_UP = 3  # plain calls before one is recorded: libraries initialise in them
_N_LANES = 2
_of_lane = threading.local()
_recording = threading.Lock()  # torch records one graph at a time in a process


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Work on a new stream, as recording needs it; log the peak memory."""
    if device.type != "cuda":
        yield
        return
    before, own = torch.cuda.current_stream(device), stream(device)
    torch.cuda.reset_peak_memory_stats(device)
    with torch.cuda.stream(own):
        yield
    before.wait_stream(own)
    log_peak(device, logging.INFO)


def stream(device: torch.device) -> torch.cuda.Stream:
    """Return a new stream, which waits for what was asked of the device so far."""
    new = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    new.wait_stream(torch.cuda.current_stream(device))
    return new


def fits(tensors: Sequence[Tensor], device: torch.device) -> bool:
    """Return whether tensors fit on a device and leave half of its free memory."""
    if device.type != "cuda" or all(x.device == device for x in tensors):
        return True
    return room(device, max(1, sum(x.nbytes for x in tensors))) > 0


def room(device: torch.device, n_bytes: int) -> int:
    """Return how many things of ``n_bytes`` fit in half of a GPU's free memory."""
    n_free, _ = torch.cuda.mem_get_info(device)
    n_kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # in torch's cache
    return int((n_free + n_kept) // 2 // n_bytes)


def in_halves(n: int, size: int, work: Callable[[slice, int], None]) -> int:
    """Call ``work`` with each slice of at most ``size`` of n things, and that size. Returns the last size.

    Where a GPU runs out of memory, the slice is tried again at half the size, which then holds from there on.
    Raises torch.OutOfMemoryError where one thing is too many.
    """
    start = 0
    while start < n:
        rows = slice(start, min(start + size, n))
        if _suffices(work, rows, size):
            start = rows.stop
            continue
        size //= 2
        torch.cuda.empty_cache()  # only here: inside the handler, the error still holds what was computed
        log.warning("out of memory with slices of %d: going on with %d", 2 * size, size)
    return size


def _suffices(work: Callable[[slice, int], None], rows: slice, size: int) -> bool:
    try:
        work(rows, size)
    except torch.OutOfMemoryError:
        if size < 2:
            raise
        return False
    return True


def log_peak(device: torch.device, level: int) -> None:
    if device.type == "cuda":
        log.log(level, "%s: at most %.0f MB of memory", device, torch.cuda.max_memory_allocated(device) / 1e6)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on a device.

    To a GPU it goes through pinned memory without waiting: torch keeps that memory until the copy has
    arrived.
    """
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    pinned = torch.empty_like(tensor, pin_memory=True)  # dense, even where the tensor is a view
    return pinned.copy_(tensor).to(device, non_blocking=True)


@cache
def lanes(device: torch.device) -> ThreadPoolExecutor:
    """Return threads with a GPU stream each: while kernels run on one, the other copies.

    They stay, and so does what they allocated, however many threads wait for them.
    """
    return ThreadPoolExecutor(_N_LANES, f"vae-core-{device}")


def on_lane(device: torch.device, work: Callable[[], int]) -> Callable[[], int]:
    """Wrap work for a lane's thread.

    It begins after what the current stream was asked so far, and is finished when it returns.
    """
    asked = torch.cuda.current_stream(device).record_event()

    def run() -> int:
        if not hasattr(_of_lane, "stream"):
            _of_lane.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(_of_lane.stream):
            _of_lane.stream.wait_event(asked)
            try:
                return work()
            finally:
                _of_lane.stream.synchronize()

    return run


class Recorded:
    """A function of tensors that changes state in place, on a GPU recorded once and replayed as one graph.

    Launching a hundred small kernels takes longer than running them. All shapes, and whatever the function
    reads other than its arguments, must stay the same. Where recording fails, it goes on plainly.
    """

    def __init__(
        self, function: Callable[..., None], record: Callable[[Callable[[], None]], Callable[[], None]]
    ) -> None:
        """record: turns a call into one that repeats it, such as ``graph``."""
        self.function, self.record = function, record
        self.n_calls = 0
        self.inputs: list[Tensor] = []
        self.repeat: Callable[[], None] | None = None

    def __call__(self, *inputs: Tensor) -> None:
        if self.n_calls == _WARM_UP:
            self._try_to_record(inputs)
        self.n_calls += 1
        if self.repeat is None:
            self.function(*inputs)
            return
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.repeat()

    def _try_to_record(self, inputs: Sequence[Tensor]) -> None:
        self.inputs = [x.clone() for x in inputs]
        try:
            self.repeat = self.record(lambda: self.function(*self.inputs))
        except RuntimeError as fault:
            log.warning(
                "a training step could not be recorded as a CUDA graph; its kernels are launched one by one: %s",
                fault,
            )


def graph(call: Callable[[], None]) -> Callable[[], None]:
    """Record a call's kernels without running them. Returns what replays them.

    The current stream must not be the default one. A thread that records waits for another that does.
    """
    recorded, own = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    # other threads of the process may use the device meanwhile
    with _recording, torch.cuda.graph(recorded, stream=own, capture_error_mode="thread_local"):
        call()
    repeat: Callable[[], None] = recorded.replay
    return repeat
