"""From records to a model: what a fit checks, takes and returns.

Belongs here: the order of a fit. Does not: its steps (run.py), which records each of them sees
(minibatches.py), or what scoring needs to know afterwards (summary.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Integral

import torch

from vae_core.adversarial import TrainingWarning, judge
from vae_core.checkpoint import Checkpoint, identify, marked, refuse_other
from vae_core.device import own_stream
from vae_core.diagnosis import diagnose
from vae_core.feedback import weigh
from vae_core.known import Known
from vae_core.model import VAE
from vae_core.parallel import Ranks
from vae_core.recipe import Recipe
from vae_core.records import Layout, Records
from vae_core.run import Progress, Run
from vae_core.stock import Stock, take_stock
from vae_core.summary import summarise_training
from vae_core.threads import one_thread_per_kernel

_KINDS: dict[str, tuple[type, str]] = {
    "layout": (Layout, "a Layout, which names the columns"),
    "recipe": (Recipe, "a Recipe (of a mapping: Recipe.from_dict)"),
    "known": (Known, "a Known(anomalies, normals)"),
    "seed": (Integral, "a whole number"),
}


def fit(
    layout: Layout,
    records: Records,
    recipe: Recipe | None = None,
    *,
    seed: int,
    known: Known | None = None,
    device: torch.device | str | None = None,
    ranks: Ranks | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    checkpoint: Callable[[Checkpoint], None] | None = None,
    checkpoint_every: int = 250,
    resume: Checkpoint | None = None,
    on_doubt: Callable[[str], None] | None = None,
) -> VAE:
    """Train a model on records and measure on them what scoring needs.

    known: what people said of some records. It weighs the terms of the score (feedback.py) and, where the
        recipe says so, makes training push the anomalies out and keep the normals in (known.py).
    device: where to train; by default that of the records. The model is returned there. Records that a GPU
        has no room for stay where they are.
    ranks: the processes of one fit (parallel.py); all call it alike and all return the model.
    on_progress: called every 25 steps and after the last one.
    checkpoint: called every ``checkpoint_every`` steps; to go on from what it got, pass that as ``resume``,
        with otherwise equal arguments. Another device goes on, too, but rounds differently.
    on_doubt: told each sentence of a DataWarning or a TrainingWarning instead of the warning. Warnings belong
        to the whole process, which may show, hide or raise them; this belongs to one fit.

    Raises TypeError where an argument is of another kind, ValueError where the records cannot be trained on,
    OtherFit where ``resume`` is a checkpoint of other arguments and TrainingDiverged where the loss stays
    non-finite. Warns with a DataWarning about columns that are constant or never observed, with a
    TrainingWarning about what a discriminator can still tell apart, collapsed posteriors and variances at
    their bounds.
    """
    recipe, known = recipe or Recipe(), Known() if known is None else known
    _refuse_other_kinds(layout=layout, recipe=recipe, known=known, seed=seed)
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be at least 1, is {checkpoint_every}")
    for part in (known.anomalies, known.normals):
        if part is not None:
            layout.check(part)
    stock = take_stock(layout, records, on_doubt)
    if resume is not None or checkpoint is not None:
        this = identify(layout, recipe, records, seed, known)
        if resume is not None:
            refuse_other(resume, this)
        checkpoint = checkpoint and marked(checkpoint, this)
    device = records.device if device is None else torch.device(device)
    gradients = torch.inference_mode(False)  # whatever mode the caller is in
    with gradients, one_thread_per_kernel(), own_stream(device):
        vae = start(layout, recipe, stock, records, seed).to(device)
        run = Run(vae, [records], [seed], known=known.to(device), ranks=ranks)
        if resume is not None:
            run.restore(resume)
        run.train(on_progress, checkpoint, checkpoint_every)
        run.release()
        notes: list[str] = []
        for adversary in run.losses.adversaries:
            notes += judge(adversary, vae, records, torch.Generator(device).manual_seed(seed))
        notes += finish(vae, records, seed)
        weigh(vae, known)
    if on_doubt is not None:
        for note in notes:
            on_doubt(note)
    elif notes:
        warnings.warn("trained, but " + "; ".join(notes), TrainingWarning, stacklevel=2)
    return vae


def _refuse_other_kinds(**arguments: object) -> None:
    for name, value in arguments.items():
        kind, words = _KINDS[name]
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be {words}, is a {type(value).__name__}")


def start(layout: Layout, recipe: Recipe, stock: Stock, records: Records, seed: int) -> VAE:
    """Return an untrained model."""
    vae = VAE(layout, recipe, stock.indicated)
    vae.initialise(records.categorical.cpu(), torch.Generator().manual_seed(seed))
    vae.start_rates(records.numeric)
    vae.learned.copy_(torch.tensor(stock.learned))
    vae.noise.know_steps(torch.tensor(stock.steps))
    return vae


def finish(vae: VAE, records: Records, seed: int) -> tuple[str, ...]:
    """Measure what scoring needs to know of the training records.

    Returns what is wrong with the model, in words.
    """
    vae.eval()
    summarise_training(vae, records, trim=vae.recipe.trim, seed=seed)
    return diagnose(vae, records).notes
