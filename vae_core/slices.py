"""Records go through the networks in slices of one size.

Belongs here: how large a slice is, padding the last one, and processing slices in parallel on threads. Does
not: what is made of a slice (scoring.py, summary.py, diagnosis.py, generation.py).

Every kernel sees one shape and aligned memory, and computes on one thread, so a record's result is the same
to the bit whatever else is computed beside it. On a GPU, slices are as large as its memory allows, and two
are in flight at once: one is copied there or back while the other is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from functools import partial

import torch
from torch import Tensor

from vae_core.device import in_halves, lanes, on_lane, room
from vae_core.model import VAE
from vae_core.records import Records
from vae_core.threads import one_thread_per_kernel

LARGEST_SLICE = 6144
_SMALLEST_SLICE = 48
_SEARCHED_SLICE = 64  # where their latents are searched for
_LARGEST_ON_GPU = 256 * LARGEST_SLICE
_TENSORS = 16  # of the widest one's size, which take as much memory as all that are held at once
SLICE_CELLS = 2**21


def slice_size(vae: VAE) -> int:
    """Return how many records go through the networks together, by the model alone.

    Three times a power of two. Kernels work on blocks of 8 to 96 records, none of which then has a remainder,
    and no two columns of a tensor compete for one place in the cache, as they do at a power of two.
    """
    if vae.recipe.encoder == "none":
        return _SEARCHED_SLICE
    return _largest(min(LARGEST_SLICE, SLICE_CELLS // _widest(vae)))


def fitting_slice(vae: VAE) -> int:
    """Return how many records go through the networks together on the model's device.

    On a CPU `slice_size`, on a GPU as many as there is room for.
    """
    if vae.device.type != "cuda":
        return slice_size(vae)
    return _largest(min(_LARGEST_ON_GPU, room(vae.device, 4 * _TENSORS * _widest(vae))))


def _largest(bound: int) -> int:
    size = _SMALLEST_SLICE
    while 2 * size <= bound:
        size *= 2
    return size


def _widest(vae: VAE) -> int:
    """Return the cells per record, of four bytes, of a slice's largest tensor."""
    recipe, layout = vae.recipe, vae.layout
    squared = recipe.latents_for(layout) ** 2
    covariance = squared if recipe.posterior == "full" else 0
    if recipe.encoder == "exact":
        covariance = 2 * squared  # in double precision
    columns = 2 * len(layout.numeric) + sum(layout.n_codes)
    return recipe.n_members * max(recipe.width, recipe.n_components, columns, covariance)


def in_slices(vae: VAE, records: Records, work: Callable[[Records, slice], None]) -> None:
    """Call ``work`` with each slice of the records, and with its rows.

    Slices are padded to one size and on the model's device. On a CPU they run in parallel on as many threads
    as torch was allowed.
    """

    def run(rows: slice, size: int) -> None:
        work(filled_up(records[rows], size).sent(vae.device), rows)

    side_by_side(vae, len(records), run, fitting_slice(vae))


def side_by_side(
    vae: VAE, n_records: int, work: Callable[[slice, int], None], size: int, *, threads: int | None = None
) -> int:
    """Call ``work`` with each slice's rows and the size to pad it to. Returns the size that fitted."""
    starts = range(0, n_records, size)
    run = torch.inference_mode()(work)

    def run_from(start: int) -> None:
        run(slice(start, min(start + size, n_records)), size)

    with one_thread_per_kernel() as n_allowed:
        n_threads = min(threads or n_allowed, len(starts))
        if vae.device.type != "cpu":
            wanted = _alike(n_records, size)
            sufficient = _on_device(vae.device, n_records, wanted, run)
            return size if sufficient == wanted else sufficient
        if n_threads < 2:
            return in_halves(n_records, size, run)
        with ThreadPoolExecutor(n_threads) as pool:
            for _ in pool.map(run_from, starts):  # raises what a slice raised
                pass
    return size


def _alike(n: int, size: int) -> int:
    """Return the size of as many slices as n records need, all alike, in whole blocks where ``size`` allows.

    On a GPU few records cost little, and what pads the last slice of a million would cost as much as records.
    """
    n_slices = max(1, math.ceil(n / size))
    return min(size, math.ceil(n / n_slices / _SMALLEST_SLICE) * _SMALLEST_SLICE)


def _on_device(device: torch.device, n: int, size: int, work: Callable[[slice, int], None]) -> int:
    """Run `in_halves`, on a GPU's lanes."""
    if device.type != "cuda":
        return in_halves(n, size, work)
    return on_lanes(lanes(device), n, size, work, partial(on_lane, device))


def on_lanes(
    pool: Executor,
    n: int,
    size: int,
    work: Callable[[slice, int], None],
    lane: Callable[[Callable[[], int]], Callable[[], int]],
) -> int:
    """Run `in_halves` in parallel on the first half of the slices and on the second.

    lane: wraps work for the pool. Returns the smaller size.
    """
    middle = (n // size + 1) // 2 * size if n > size else n

    def part(begin: int, end: int) -> int:
        return in_halves(end - begin, size, lambda at, of: work(slice(begin + at.start, begin + at.stop), of))

    halves = [(0, middle), (middle, n)]
    under_way = [pool.submit(lane(partial(part, *half))) for half in halves if half[0] < half[1]]
    wait(under_way)
    return min((done.result() for done in under_way), default=size)


def filled_up(part: Records, size: int) -> Records:
    """Pad records with rows of zeros to ``size`` rows."""
    return Records(*(_filled(x, size) for x in (part.numeric, part.categorical, part.context)))


def _filled(part: Tensor, n_rows: int) -> Tensor:
    """Return a zero-padded copy (n_rows, n_columns), each column contiguous (layers.even_product)."""
    filled = part.new_empty(part.shape[1], n_rows).T
    filled[: len(part)] = part
    filled[len(part) :] = 0
    return filled
