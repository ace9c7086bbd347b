"""Training for `make bench-speed`: beside PyOD's VAE and beside the matrix products of a step. As a program:
one measurement.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from tests.bench.speed import Line, Plan, child
from tests.bench.speed_scoring import N_COLUMNS, NAMES, drawn

FEW, MANY = 4_000, 1_000_000
ENOUGH = (
    500  # steps after which AUROC on contaminated ADBench sets is within 0.2 of the default's (docs/log.md)
)
RIVAL_MEASURED = 20_000  # rows of which PyOD's epoch is measured where there are very many


def fit_once(n: int, steps: int | None = None) -> dict[str, Any]:
    """Seconds of a fit on n rows, all of it, on one core; and of its steps alone. The default's steps unless
    said.
    """
    import torch

    from vae_core import Layout, Recipe, Records, fit

    torch.set_num_threads(1)
    rows = torch.from_numpy(drawn(n, 0))
    records = Records(rows, torch.empty(n, 0, dtype=torch.int64), torch.empty(n, 0))
    recipe = Recipe() if steps is None else Recipe(steps=steps)
    began: list[float] = []
    ended: list[float] = []

    def note(progress: Any) -> None:
        (began if not began else ended).append(time.perf_counter())

    start = time.perf_counter()
    fit(Layout(tuple(NAMES)), records, recipe, seed=0, on_progress=note)
    whole = time.perf_counter() - start
    return {"seconds": whole, "step": (ended[-1] - began[0]) / (recipe.steps - 25)}


def critic(n: int) -> dict[str, Any]:
    """Seconds of the critic that a night's training adds, on n rows and one core."""
    import torch

    from vae_core import Layout, Records, fit_critic

    torch.set_num_threads(1)
    rows = torch.from_numpy(drawn(n, 0))
    records = Records(rows, torch.empty(n, 0, dtype=torch.int64), torch.empty(n, 0))
    start = time.perf_counter()
    fit_critic(Layout(tuple(NAMES)), records, seed=0)
    return {"seconds": time.perf_counter() - start}


def rival(n: int) -> dict[str, Any]:
    """Seconds of PyOD's VAE with its defaults; of very many rows an epoch's cost by row is measured on
    fewer.
    """
    import torch
    from pyod.models.vae import VAE

    torch.set_num_threads(1)
    model = VAE(verbose=0)
    measured = min(n, RIVAL_MEASURED)
    if measured < n:
        epochs, model = model.epoch_num, VAE(epoch_num=1, verbose=0)
    start = time.perf_counter()
    model.fit(drawn(measured, 0))
    seconds = time.perf_counter() - start
    return {"seconds": seconds if measured == n else seconds * epochs * n / measured}


def products(steps: int) -> dict[str, float]:
    """Seconds of a step's matrix products at the rate of large ones: forward, and twice as many back."""
    import torch

    from tests.bench.speed_scoring import products as of_record
    from vae_core import VAE, Layout, Recipe

    torch.set_num_threads(1)
    recipe = Recipe()
    operations = 3 * recipe.minibatch * of_record(VAE(Layout(tuple(NAMES)), recipe))
    left, right, out = (torch.randn(1024, 1024) for _ in range(3))
    start = time.perf_counter()
    for _ in range(steps):
        torch.mm(left, right, out=out)
    rate = steps * 2 * 1024**3 / (time.perf_counter() - start)
    return {"step": operations / rate}


def train_lines(plan: Plan) -> list[Line]:
    """Our whole fit beside theirs, each to its own quality."""
    from vae_core import Recipe

    lines = []
    for n, reach in ((FEW, 10), (MANY, 100)):
        found = []
        for _ in range(min(2, plan.repeats)):
            theirs = child("speed_training", "rival", n)["seconds"]
            ours = ("enough", n) if n == FEW else ("fit", n)
            found.append((theirs, child("speed_training", *ours)["seconds"]))
        theirs, seconds = np.median(found, axis=0)
        note = (
            f"{ENOUGH} steps, by the log: on contaminated ADBench sets AUROC within 0.2 of the default's {Recipe().steps}"
            if n == FEW
            else f"theirs from the cost of an epoch on {RIVAL_MEASURED} rows"
        )
        lines.append(
            Line(
                f"train on {n / 1e6:g} M rows, {N_COLUMNS} columns, one core"
                if n == MANY
                else f"train on {n} rows, {N_COLUMNS} columns, one core",
                f"PyOD VAE {theirs:.0f} s",
                f"{seconds:.1f} s",
                [a / b for a, b in found],
                reach,
                True,
                "×",
                note,
            )
        )
    return lines


def step_lines(plan: Plan) -> list[Line]:
    """A step of the default beside its matrix products. No figure is promised: what is left is the cost of
    calls.
    """
    found = [
        (child("speed_training", "products", 60)["step"], child("speed_training", "fit", FEW)["step"])
        for _ in range(plan.repeats)
    ]
    floor, ours = np.median(found, axis=0)
    return [
        Line(
            "training step, 4 nets, 128 records",
            f"products {floor * 1e3:.2f} ms",
            f"{ours * 1e3:.2f} ms",
            [b / a for a, b in found],
            10.0,
            False,
            "×",
            "as low as torch allows; the reach is ours",
        )
    ]


def critic_lines(plan: Plan) -> list[Line]:
    """The second witness for reasons beside one of a night's two fits. No figure is promised."""
    found = [
        tuple(child("speed_training", what, FEW)["seconds"] for what in ("fit", "critic"))
        for _ in range(min(2, plan.repeats))
    ]
    one, ours = np.median(found, axis=0)
    return [
        Line(
            f"train the critic on {FEW} rows, {N_COLUMNS} columns, one core",
            f"one fit of the model {one:.1f} s",
            f"{ours:.1f} s",
            [b / a for a, b in found],
            2.0,
            False,
            "×",
            "once a night, beside two fits; the reach is ours",
        )
    ]


ROWS = {"train": train_lines, "step": step_lines, "critic": critic_lines}


if __name__ == "__main__":
    first, size = sys.argv[1], int(sys.argv[2])
    measurements = {
        "fit": fit_once,
        "enough": lambda n: fit_once(n, ENOUGH),
        "critic": critic,
        "rival": rival,
        "products": products,
    }
    print(json.dumps(measurements[first](size)))
