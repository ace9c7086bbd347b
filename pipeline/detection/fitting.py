"""A dataset's fits: vae_core's, with its recipe, device, verdicts and checkpoint.

Belongs here: what goes into a fit, and its failures in the dataset's words. Does not: the loop (vae_core), or
what is made of the fitted model (detector.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline.config.dataset import Dataset
from pipeline.detection.features import Features
from pipeline.detection.recipe import recipe_of
from pipeline.errors import ModelUnusable
from pipeline.records.verdicts import JUDGED_NORMAL, PLACE
from vae_core import VAE, CellCritic, Checkpoint, Known, OtherFit, Progress, TrainingDiverged, fit, fit_critic

log = logging.getLogger(__name__)


def best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Run:
    """How a fit is run, whatever it learns.

    Attributes:
        device: where; None for a GPU where there is one.
        checkpoint: file to which progress is saved; where it exists, the fit goes on from it.
    """

    device: str | None = None
    on_progress: Callable[[Progress], None] | None = None
    checkpoint: Path | None = None

    @property
    def place(self) -> str:
        return self.device or best_device()


def fit_model(
    dataset: Dataset, features: Features, table: pa.Table, anomalies: pa.Table | None, run: Run
) -> tuple[VAE, tuple[str, ...]]:
    """Return the model, on the CPU, and what its fit says against it, a sentence each.

    Raises:
        ConfigError: vae_core refuses a value of `train.recipe`.
        ModelUnusable: the fit diverged, which it will again; records that teach nothing; or a checkpoint that
            cannot be read or is of another fit.
    """
    doubts: list[str] = []
    checkpoint = run.checkpoint
    try:
        vae = fit(
            features.layout,
            features.records(table),
            recipe_of(dataset),
            seed=dataset.train.seed,
            known=known(features, table, anomalies),
            device=run.place,
            on_progress=run.on_progress,
            checkpoint=None if checkpoint is None else lambda state: _save_checkpoint(state, checkpoint),
            resume=_load_checkpoint(checkpoint),
            on_doubt=doubts.append,
        )
    except TrainingDiverged as fault:
        raise ModelUnusable(
            f"{dataset.name}: the training gave no model: {fault} in train.recipe ({dataset.named_file})"
        ) from fault
    except OtherFit as fault:
        raise ModelUnusable(
            f"{dataset.name}: the training cannot resume: {fault}: remove {checkpoint} and train again"
        ) from fault
    except ValueError as fault:  # records that teach nothing, or settings that contradict each other
        raise ModelUnusable(
            f"{dataset.name}: the training gave no model: {fault}; look at the columns and train.recipe "
            f"({dataset.named_file})"
        ) from fault
    return vae.to("cpu"), tuple(doubts)


def fit_second_witness(dataset: Dataset, features: Features, table: pa.Table, run: Run) -> CellCritic | None:
    """Return the critic, on the CPU; None where the recipe wants none, or there is nothing to learn.

    It needs all records on its device, and is trained on the CPU where a GPU has no room for them.
    """
    recipe, records = recipe_of(dataset), features.records(table)
    steps = recipe.steps if recipe.critic_steps is None else recipe.critic_steps

    def trained(place: str) -> CellCritic | None:
        return fit_critic(features.layout, records.to(place), seed=dataset.train.seed, steps=steps)

    try:
        critic = trained(run.place)
    except torch.OutOfMemoryError as fault:
        log.warning("%s: the critic is trained on the CPU instead of %s: %s", dataset.name, run.place, fault)
        critic = trained("cpu")
    return critic and critic.to("cpu")


def known(features: Features, table: pa.Table, anomalies: pa.Table | None) -> Known:
    """Return what people judged, as vae_core takes it."""
    normals = table.filter(table[JUDGED_NORMAL]) if JUDGED_NORMAL in table.column_names else None
    return Known(*(features.records(part) if part else None for part in (anomalies, normals)))


def among(anomalies: pa.Table | None, training: pa.Table, calibrating: pa.Table) -> pa.Table | None:
    """Return the anomalies of the calibration days."""
    if anomalies is None or not anomalies:
        return None
    place = anomalies[PLACE].to_numpy()
    return anomalies.filter(
        pa.array((place >= training.num_rows) & (place <= training.num_rows + calibrating.num_rows))
    )


def _save_checkpoint(state: Checkpoint, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    save_file({**state.tensors, "_step": torch.tensor(state.step)}, draft)
    draft.replace(file)


def _load_checkpoint(file: Path | None) -> Checkpoint | None:
    if file is None or not file.exists():
        return None
    try:
        tensors = load_file(file)
    except SafetensorError as fault:
        raise ModelUnusable(
            f"the training cannot resume from {file} ({fault}): remove it and train again"
        ) from fault
    return Checkpoint(int(tensors.pop("_step")), tensors)
