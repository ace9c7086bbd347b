"""Features + VAE + calibration + critic: the unit that is trained, versioned, saved, loaded and explained.

Belongs here: from an Arrow table to scores and reasons, and to a folder and back without pickle. Does not:
which records are read (training/training_set.py, scoring.py) or where versions live (registry/).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline.config import derived
from pipeline.config.contracts import contract_hash, kept_columns
from pipeline.config.dataset import Dataset, Flagging
from pipeline.detection import intervals
from pipeline.detection.calibration import Calibration, Threshold
from pipeline.detection.features import Features
from pipeline.detection.fitting import Run, among, best_device, fit_model, fit_second_witness, known
from pipeline.detection.intervals import Bounds
from pipeline.detection.reasons import Explanation, explanations
from pipeline.detection.reference import Reference
from pipeline.errors import ModelUnusable
from pipeline.records.window import DAY
from vae_core import VAE, CellCritic, Progress, Scorer, attribute, negative_elbo, score, weigh

FORMAT = 3
MOST_COMPARED = 100_000  # training records that both models of a refit score

SCORE_COLUMNS = pa.schema([
    ("anomaly_score", pa.float32()),
    ("reconstruction", pa.float32()),
    ("kl_divergence", pa.float32()),
    ("p_value", pa.float64()),
    ("severity", pa.float32()),
])


@dataclass(frozen=True)
class Detector:
    """A trained model with all that it needs to judge a table.

    Attributes:
        records_per_day: accepted records on a normal day of the training window; turns a budget into a rate.
        about: where it comes from: dataset, contract_hash, versions.
        reference: how each column was distributed in the training window.
        doubts: what its fit said against it, a sentence each; not saved, the registry keeps it.
        critic: a second witness for reasons; None in a detector that does not serve, or where the recipe
            wants none.
        intervals: how far from its expected value a number of a normal record lies, see intervals.py.
    """

    features: Features
    vae: VAE
    calibration: Calibration
    records_per_day: float
    about: Mapping[str, Any]
    reference: Reference | None = None
    critic: CellCritic | None = None
    doubts: tuple[str, ...] = ()
    intervals: Bounds = ()

    @classmethod
    def train(
        cls,
        dataset: Dataset,
        training: pa.Table,
        calibrating: pa.Table,
        anomalies: pa.Table | None = None,
        *,
        records_per_day: float,
        device: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        checkpoint: Path | None = None,
    ) -> Self:
        """Fit features and model on `training`, calibrate on `calibrating`: later records not trained on.

        The features know the latter's categories and ranges, so that a model can learn them later, see
        `refit`.

        Args:
            training, calibrating: a column JUDGED_NORMAL, if there is one, says which records people found to
                be normal.
            anomalies: records that people found to be anomalous, with a column PLACE. With the normal ones
                they weigh the terms of the score. Those of the calibration days count there as if nobody had
                judged them: verdicts change the order of records, not how many are flagged.
            device: where to train; default a GPU where there is one.
            checkpoint: file to which progress is saved; where it exists, training goes on from it.

        Raises:
            NotReady: too few records to calibrate on.
            ConfigError: vae_core refuses a value of `train.recipe`.
            ModelUnusable: the training diverged, which it will again; records that teach nothing; or an unfit
                checkpoint.
        """
        window = pa.concat_tables([training, calibrating])
        features = Features.fit(dataset, window)
        run = Run(device, on_progress, checkpoint)
        vae, doubts = fit_model(dataset, features, training, anomalies, run)
        # by verdicts on the newest days, too, which the fit did not see
        weigh(vae, known(features, window, anomalies))
        parts = [part for part in (calibrating, among(anomalies, training, calibrating)) if part]
        found = [score(vae, features.records(part)).anomaly_score.numpy() for part in parts]
        days = [part[DAY].to_numpy() for part in parts if DAY in part.column_names]
        calibration = Calibration.fit(np.concatenate(found), np.concatenate(days) if days else None)
        about = {
            "dataset": dataset.name,
            "contract_hash": contract_hash(dataset),
            "derived": derived.definitions(dataset),
            "vaewatch": version("vaewatch"),
            "torch": torch.__version__,
            "device": run.place,
        }
        reference = Reference.fit(features, window)
        bounds = intervals.learned(vae, features.records(calibrating))
        return cls(
            features,
            vae,
            calibration,
            records_per_day,
            about,
            reference,
            doubts=doubts,
            intervals=bounds,
        )

    def refit(
        self,
        dataset: Dataset,
        training: pa.Table,
        calibrating: pa.Table,
        anomalies: pa.Table | None = None,
        *,
        device: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        checkpoint: Path | None = None,
    ) -> Self:
        """Train the model anew on all records, including those that this one was calibrated on.

        The newest days are the most like tomorrow; leaving them out costs more than calibrating on them is
        worth. Calibration says how a model trained by this recipe scores days after the ones it knows, and
        tomorrow is such a day. It is carried over by what both models say of the training records
        (docs/decisions/refit.md). So are the weights of the score's terms: verdicts on records that this
        model has not learned say most.

        Args:
            training, calibrating, anomalies, device, on_progress, checkpoint: as in `train`.
        """
        table = pa.concat_tables([training, calibrating])
        run = Run(device, on_progress, checkpoint)
        vae, doubts = fit_model(dataset, self.features, table, anomalies, run)
        vae.weights.copy_(self.vae.weights)
        both = self.features.records(training.slice(max(0, training.num_rows - MOST_COMPARED)))
        before, after = (score(model, both).anomaly_score.numpy() for model in (self.vae, vae))
        critic = fit_second_witness(dataset, self.features, table, run)
        calibration = self.calibration.carried_over(before, after)
        known_before, known_after = (intervals.learned(model, both) for model in (self.vae, vae))
        bounds = intervals.carried_over(self.intervals, known_before, known_after)
        return replace(self, vae=vae, calibration=calibration, critic=critic, doubts=doubts, intervals=bounds)

    def score_table(self, table: pa.Table, *, threads: int | None = None) -> pa.Table:
        """Return scores of records, one row each in the same order, with the columns of SCORE_COLUMNS.

        A record's scores depend only on the record and this detector; a GPU, used where there is one, rounds
        them differently. Safe to call from several threads.

        Args:
            threads: how many cores; None for as many as torch is allowed.

        Raises:
            ModelUnusable: the table lacks a column that the model needs.
        """
        scores = self._scorer(self._records(table), threads=threads, column_terms=False)
        values = scores.anomaly_score.numpy()
        p_values = self.calibration.p_values(values)
        columns = [
            values,
            scores.reconstruction.numpy(),
            scores.kl_divergence.numpy(),
            p_values,
            self.calibration.severity(values, p_values).astype(np.float32),
        ]
        return pa.table([pa.array(c) for c in columns], schema=SCORE_COLUMNS)

    def negative_elbo(self, table: pa.Table) -> Any:
        """Return −ELBO in nats of standardised units; None where the regulariser has none. (n_records,)"""
        if self.vae.recipe.regulariser != "kl":
            return None
        return negative_elbo(self.vae, self._records(table)).whole.numpy()

    def threshold(self, flag: Flagging) -> Threshold:
        """Return the score above which this rule flags, on a day with as many records as in training."""
        return self.calibration.threshold(flag, self.records_per_day)

    @property
    def kl_weight(self) -> float:
        """How much the KL divergence counts in the score: 1 unless verdicts taught otherwise."""
        return float(self.vae.weights[-1])

    @cached_property
    def _scorer(self) -> Scorer:
        device = best_device()
        return Scorer(self.vae if device == "cpu" else copy.deepcopy(self.vae).to(device))

    def explain(self, table: pa.Table, dataset: Dataset, *, every: bool = False) -> list[Explanation]:
        """Return reasons for each record, best first.

        Meant for flagged records, as each costs a few scorings per column.

        Args:
            every: of each column that is not as expected, however little it explains.
        """
        records = self._records(table)
        found = attribute(self.vae, records, self.critic, within=self.features.rims)
        return explanations(dataset, self.features, table, records, found, self.intervals, every=every)

    def _records(self, table: pa.Table) -> Any:
        missing = [name for name in self.features.columns if name not in table.column_names]
        if missing:
            name = self.about.get("dataset", "DATASET")
            raise ModelUnusable(
                f"the model needs columns {', '.join(map(repr, missing))}, which the records lack: the contract has "
                f"changed. If they are no longer in it, train again (vaewatch train {name}); if they were only left out "
                f"when the batch was checked, check it again (vaewatch validate {name} BATCH --force)"
            )
        return self.features.records(table)

    def misfit(self, dataset: Dataset) -> str:
        """Say why records that are checked by a dataset's file of now cannot be scored; empty where they can.

        Those that were checked by an earlier one may still have all that the model needs.
        """
        there = {**kept_columns(dataset), **{name: one.column for name, one in dataset.derived.items()}}
        gone = [name for name in self.features.columns if name not in there]
        numbers = (*self.features.numeric, *self.features.context_numeric)
        other = [name for name in numbers if name in there and not there[name].is_countable]
        other += [name for name in self.features.context_time if name in there and not there[name].is_time]
        said = [f"it reads {', '.join(gone)}, which the dataset's file leaves out"] if gone else []
        said += [f"it learned {name} as another type than {there[name].type}" for name in other]
        if changed := self.other_derived(dataset):
            said.append(f"derived columns changed since it was trained ({', '.join(changed)})")
        return "; ".join(said)

    def other_derived(self, dataset: Dataset) -> tuple[str, ...]:
        """Return which derived columns, or settings of theirs, are now others than the model learned."""
        then, now = self.about.get("derived", {}), derived.definitions(dataset)
        was, is_now = then.get("sql", {}), now.get("sql", {})
        names = [name for name in {**was, **is_now} if was.get(name) != is_now.get(name)]
        names += [name for name in ("entity", "look_back_days") if then and now and then[name] != now[name]]
        return tuple(names)

    def save(self, folder: Path) -> None:
        """Write detector.json and weights.safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "format": FORMAT,
            "about": dict(self.about),
            "records_per_day": self.records_per_day,
            "features": self.features.to_dict(),
            "vae": self.vae.config(),
            "reference": self.reference and self.reference.to_dict(),
        }
        (folder / "detector.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        tensors = {f"vae.{name}": tensor.contiguous() for name, tensor in self.vae.state_dict().items()}
        if self.critic is not None:
            tensors |= {f"critic.{name}": x.contiguous() for name, x in self.critic.state_dict().items()}
        tensors["calibration.scores"] = torch.from_numpy(self.calibration.scores.copy())
        tensors["intervals"] = torch.tensor(self.intervals, dtype=torch.float64).view(-1, 2)
        save_file(tensors, folder / "weights.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Nothing in the folder is executed.

        Raises:
            ModelUnusable: files are missing, damaged, or of another format.
        """
        try:
            state = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
            if state["format"] != FORMAT:
                raise ModelUnusable(
                    f"{folder}: the detector has format {state['format']}, this vaewatch reads only {FORMAT}; train again"
                )
            tensors = load_file(folder / "weights.safetensors")
            scores = tensors.pop("calibration.scores").numpy()
            features = Features.from_dict(state["features"])
            vae = VAE.from_config(state["vae"], _part(tensors, "vae."))
            critic = _part(tensors, "critic.")
            if features.layout != vae.layout:
                raise ModelUnusable(
                    f"{folder}: the saved features do not fit the saved model: {features.layout.columns}; train again"
                )
            counted = state.get("reference")
            reference = Reference.from_dict(counted) if counted else None
            return cls(
                features,
                vae,
                Calibration(scores),
                state["records_per_day"],
                state["about"],
                reference,
                CellCritic.from_state(features.layout, critic) if critic else None,
                intervals=_bounds(tensors.get("intervals"), len(features.numeric)),
            )
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as fault:
            raise ModelUnusable(f"{folder} does not hold a detector that can be read: {fault!r}") from fault


def _bounds(saved: torch.Tensor | None, n_columns: int) -> Bounds:
    """Return the saved bounds; a detector from before there were any has those of Gaussians."""
    if saved is None:
        return intervals.gaussian(n_columns)
    return tuple((low, high) for low, high in saved.tolist())


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
