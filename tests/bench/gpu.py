"""What a GPU makes of it: `make bench-gpu`. Under eight minutes; needs torch and numpy, and pyarrow for one
line.

Training and scoring beside what the device can do: products at the rate of large ones, bytes at the rate of a
copy, both measured here. Without a GPU the same lines are run on the CPU, with less of everything, and say
so: that tests this program and measures no GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_core import VAE, Layout, Recipe, Records, Scorer, fit, fit_many, score
from vae_core.device import own_stream
from vae_core.layers import MemberLinear
from vae_core.priors import Mixture
from vae_core.run import Progress, Run
from vae_core.scoring import ROUNDING
from vae_core.threads import one_thread_per_kernel

N_COLUMNS = 32
LAYOUT = Layout(tuple(f"x{i:02d}" for i in range(N_COLUMNS)))
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
_UNTIMED = 100  # steps, while kernels are chosen and recorded


@dataclass(frozen=True)
class Sizes:
    """How much to measure."""

    records: int
    steps: int
    large: int  # records of a large minibatch
    models: int
    matrix: int
    copied: int  # bytes


SIZES = (
    Sizes(8_000_000, 1_000, 16_384, 64, 8192, 2**31) if ON_GPU else Sizes(50_000, 200, 1_024, 4, 1024, 2**26)
)


@dataclass(frozen=True)
class Floor:
    """What the device can do: floating-point operations and bytes, read or written, a second."""

    operations: float
    bytes: float

    def seconds(self, n_operations: float, n_bytes: float) -> tuple[float, float]:
        """The least that work can take by its products, and by its bytes; the larger one binds."""
        return n_operations / self.operations, n_bytes / self.bytes


def wait() -> None:
    if ON_GPU:
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """The median time of work, after one that is not counted."""
    found = []
    for _ in range(repeats + 1):
        wait()
        began = time.perf_counter()
        work()
        wait()
        found.append(time.perf_counter() - began)
    return float(np.median(found[1:]))


def floor(sizes: Sizes) -> Floor:
    """Float32 products of large square matrices, and a copy."""
    n = sizes.matrix
    left, right, out = (torch.randn(n, n, device=DEVICE) for _ in range(3))
    source = torch.empty(sizes.copied // 4, device=DEVICE).fill_(1.0)
    target = torch.empty_like(source)
    products = 2 * n**3 / seconds(lambda: torch.mm(left, right, out=out))
    return Floor(products, 2 * sizes.copied / seconds(lambda: target.copy_(source)))


def drawn(n: int, seed: int) -> Tensor:
    """Records (n, 32) that six causes explain but for noise, each column of variance one."""
    mixing = torch.randn(6, N_COLUMNS, generator=torch.Generator().manual_seed(1))
    random = torch.Generator().manual_seed(1000 + seed)
    noise = torch.randn(n, N_COLUMNS, generator=random)
    return (torch.randn(n, 6, generator=random) @ mixing + 0.5 * noise) / (
        mixing.square().sum(dim=0) + 0.25
    ).sqrt()


def records(rows: Tensor) -> Records:
    return Records(rows, rows.new_empty(len(rows), 0, dtype=torch.int64), rows.new_empty(len(rows), 0))


def operations(vae: VAE) -> int:
    """Of a record's products, once through the networks."""
    n = sum(module.weight.numel() for module in vae.modules() if isinstance(module, MemberLinear))
    n += 2 * vae.prior.mean.numel() if isinstance(vae.prior, Mixture) else 0
    return 2 * n


def step(recipe: Recipe, *, models: int = 1, recorded: bool = True) -> float:
    """Seconds of a step of all models on the device, those before _UNTIMED left out."""
    vae = VAE(LAYOUT, replace(recipe, n_members=models * recipe.n_members))
    sets = [records(drawn(50_000 if models == 1 else 4_000, i)) for i in range(models)]
    vae.initialise(sets[0].categorical, torch.Generator().manual_seed(0))
    times: dict[int, float] = {}

    def note(progress: Progress) -> None:
        times[progress.step] = time.perf_counter()

    with one_thread_per_kernel(), own_stream(DEVICE):
        run = Run(vae.to(DEVICE), sets, range(models))
        if not recorded:
            run.recorder = None
        run.train(note)
    return (times[recipe.steps] - times[_UNTIMED]) / (recipe.steps - _UNTIMED)


def training(sizes: Sizes, can: Floor) -> Iterator[str]:
    for minibatch in (Recipe().minibatch, sizes.large):
        recipe = Recipe(steps=sizes.steps, minibatch=minibatch, trim_after=0.0)
        vae = VAE(LAYOUT, recipe)
        n_weights = sum(parameter.numel() for parameter in vae.parameters())
        # forward, and twice as many products back; Adam reads four tensors of the weights' size and writes
        # three
        floors = can.seconds(3 * minibatch * operations(vae), 4 * (7 * n_weights + minibatch * N_COLUMNS))
        least = max(floors)
        took = step(recipe)
        plain = f", {step(recipe, recorded=False) * 1e6:.0f} µs kernel by kernel" if ON_GPU else ""
        reach = (
            f"; reach 3 × or 60 µs: {'green' if took <= max(3 * least, 60e-6) else 'red'}" if ON_GPU else ""
        )
        yield (
            f"training step, 4 nets, {minibatch} records: {took * 1e3:.3f} ms, {minibatch / took / 1e6:.2f} M records/s{plain}; "
            f"floors {floors[0] * 1e6:.1f} µs (products), {floors[1] * 1e6:.1f} µs (bandwidth), {took / least:.1f} ×{reach}"
        )


def scoring(sizes: Sizes, can: Floor, vae: VAE) -> Iterator[str]:
    rows = records(
        drawn(min(sizes.records, 1_000_000), 2).repeat(max(1, sizes.records // 1_000_000), 1).to(DEVICE)
    )
    scorer = Scorer(vae)
    took = seconds(lambda: scorer(rows)) / len(rows)
    of_linear = 2 * vae.linear.precision.numel() if vae.linear is not None else 0
    # in, terms and three more out
    floors = can.seconds(operations(vae) + of_linear, 4 * (2 * N_COLUMNS + 3))
    least = max(floors)
    reach = f"; reach 50 %: {'green' if least >= 0.5 * took else 'red'}" if ON_GPU else ""
    yield (
        f"scoring, records on the device: {1e-6 / took:.2f} M records/s in slices of at most {scorer.size}; "
        f"floors {1e-6 / floors[0]:.2f} (products), {1e-6 / floors[1]:.2f} (bandwidth), {least / took:.0%} of the lower{reach}"
    )


def end_to_end(sizes: Sizes, vae: VAE) -> Iterator[str]:
    if importlib.util.find_spec("pyarrow") is None:
        yield "end to end from Parquet: skipped, pyarrow is not installed"
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    scorer = Scorer(vae)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records.parquet"
        rows = drawn(min(sizes.records, 2_000_000), 3).numpy().T.copy()
        pq.write_table(pa.table(list(rows), names=list(LAYOUT.numeric)), file, row_group_size=131_072)

        def decoded() -> Iterator[Records]:
            for batch in pq.ParquetFile(file).iter_batches(131_072):
                numbers = np.empty((N_COLUMNS, batch.num_rows), np.float32)
                for i, column in enumerate(batch.columns):
                    numbers[i] = column
                yield records(torch.from_numpy(numbers).T)

        def whole() -> None:
            with ThreadPoolExecutor(2) as pool:  # as the pipeline scores: while the next ones are read
                list(pool.map(scorer, decoded()))

        took, reading = seconds(whole, 1), seconds(lambda: list(decoded()), 1)
    where = "the GPU's share, copies there and back with it" if ON_GPU else "scoring's share"
    yield (
        f"end to end from Parquet to scores in memory: {rows.shape[1] / took / 1e6:.2f} M records/s; "
        f"{where}, beyond reading: {max(0.0, 1 - reading / took):.0%}"
    )


def auroc(scores: Tensor, odd: Tensor) -> float:
    ranks = scores.argsort().argsort().double() + 1
    n_odd = int(odd.sum())
    return float((ranks[odd].sum() - n_odd * (n_odd + 1) / 2) / (n_odd * (len(odd) - n_odd)))


def quality(sizes: Sizes, vae: VAE) -> Iterator[str]:
    """vae: trained on the device."""
    rows = drawn(20_000, 4)
    odd = torch.arange(len(rows)) < 400
    rows[odd, :4] += torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    there = score(vae, records(rows)).anomaly_score
    moved = VAE.from_config(vae.config(), {name: x.cpu() for name, x in vae.state_dict().items()})
    here = score(moved, records(rows)).anomaly_score
    of_cpu = [score(trained("cpu", sizes, seed), records(rows)).anomaly_score for seed in (0, 1)]
    found, by_cpu, other_seed = (auroc(s, odd) for s in (there, *of_cpu))
    yield f"quality, AUROC: trained here {found:.4f}, on the CPU {by_cpu:.4f}, there with another seed {other_seed:.4f}"
    apart = float(((there - here).abs() / here.abs().clamp(min=1)).max())
    yield f"scores of one model here and on the CPU: {apart:.1e} apart at most, bound {ROUNDING:.0e}: {'green' if apart <= ROUNDING else 'red'}"


def trained(device: torch.device | str, sizes: Sizes, seed: int = 0) -> VAE:
    return fit(LAYOUT, records(drawn(20_000, 0)), Recipe(steps=sizes.steps), seed=seed, device=device)


def several(sizes: Sizes) -> Iterator[str]:
    recipe = Recipe(steps=sizes.steps, trim_after=0.0)
    sets = [records(drawn(4_000, 10 + i)) for i in range(sizes.models)]
    alone, together = step(recipe), step(recipe, models=sizes.models)
    wait()
    began = time.perf_counter()
    fit_many(LAYOUT, sets, recipe, seeds=range(sizes.models), device=DEVICE)
    wait()
    yield (
        f"{sizes.models} models at once: {together * 1e3:.3f} ms a step of all, {together / sizes.models * 1e3:.3f} ms a model, "
        f"alone {alone * 1e3:.3f} ms: {alone * sizes.models / together:.1f} × as fast; "
        f"fit_many whole, {sizes.steps} steps: {time.perf_counter() - began:.1f} s"
    )


def measured(sizes: Sizes, can: Floor) -> Iterator[str]:
    yield from training(sizes, can)
    vae = trained(DEVICE, sizes)
    yield from scoring(sizes, can, vae)
    yield from end_to_end(sizes, vae)
    yield from quality(sizes, vae)
    yield from several(sizes)


def lines(sizes: Sizes) -> Iterator[str]:
    where = (
        torch.cuda.get_device_name(DEVICE)
        if ON_GPU
        else "NO GPU: the lines below are of the CPU, one core, small sizes"
    )
    yield f"torch {torch.__version__}, {where}"
    can = floor(sizes)
    yield f"floors: products {can.operations / 1e12:.2f} TFLOP/s float32, copy {can.bytes / 1e9:.0f} GB/s read and written"
    most = 0
    for line in measured(sizes, can):
        yield line
        if ON_GPU:  # of the work behind this line: every fit counts from its own start
            most = max(most, torch.cuda.max_memory_allocated())
    if ON_GPU:
        yield f"most memory held: {most / 1e9:.2f} GB"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench-gpu", description=__doc__)
    parser.add_argument("--records", type=int, default=SIZES.records, help="that are scored")
    parser.add_argument(
        "--steps", type=int, default=SIZES.steps, help=f"of each training, more than {_UNTIMED}"
    )
    given = parser.parse_args()
    if given.steps <= _UNTIMED or given.records < 1:
        parser.error(f"--steps must be more than {_UNTIMED}, which are not timed, and --records at least 1")
    if not ON_GPU:
        torch.set_num_threads(1)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what few steps leave unlearned
        for line in lines(replace(SIZES, records=given.records, steps=given.steps)):
            print(line, flush=True)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
