"""What goes into the registry and what comes out, in our words.

Belongs here: frozen records. Does not: how MLflow keeps them (runs.py, versions.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


DOUBTS = "doubts"  # tag of a run and a version: what the training said against the model, a line each
EVALUATION = "evaluation.json"  # artifact of a run: what its version was judged by
NEWEST_BATCH = "newest_batch.html"  # artifact of a run: the page of the newest batch that its version scored


@dataclass(frozen=True)
class DatasetInput:
    """Records that a training read.

    Attributes:
        source: where they are; a password in it is not logged.
        digest: fingerprint of the content.
        context: what they were for, "training" or "calibration".
    """

    name: str
    source: str
    digest: str
    n_records: int
    context: str


@dataclass(frozen=True)
class TrainingRun:
    """All that is logged of one training.

    Attributes:
        training_key: identifies data, contract, settings, seed and code; the same key is the same model
            version.
        detector: folder that `Detector.save` wrote.
        input_example: what the model reads, of nobody in particular. Arrow, because pandas forgets which
            column held integers.
        metrics: of the model on its calibration records.
        curves: (step, values) while training.
        tags: contract_hash, code_version and the like, searchable on run and version.
        plots: file by title.
        note: what the training was made from, plain JSON, so that it can be repeated.
        report: the training's page.
    """

    dataset: str
    training_key: str
    detector: Path
    input_example: pa.Table
    params: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Sequence[tuple[int, Mapping[str, float]]] = ()
    inputs: Sequence[DatasetInput] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    plots: Mapping[str, Path] = field(default_factory=dict)
    note: Mapping[str, Any] = field(default_factory=dict)
    report: Path | None = None


@dataclass(frozen=True)
class ModelVersion:
    """One registered model version.

    Attributes:
        aliases: champion, challenger, previous, or none of them.
        metrics: of the model on its calibration records, see experiment.py.
    """

    dataset: str
    version: int
    run_id: str
    training_key: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    created_at: datetime
    metrics: Mapping[str, float]

    @property
    def doubts(self) -> tuple[str, ...]:
        """What its training said against it, a sentence each."""
        return tuple(self.tags.get(DOUBTS, "").splitlines())

    @property
    def notes(self) -> tuple[str, ...]:
        """The same for a receipt, wherever the version is trained, judged or shown."""
        return tuple(f"trained, but {doubt}" for doubt in self.doubts)


@dataclass(frozen=True)
class Promotion:
    """The outcome of a promotion or a rollback.

    Attributes:
        champion: the version that serves now.
        previous: the version that one rollback would bring back.
        changed: False where that version already was champion.
    """

    dataset: str
    champion: int
    previous: int | None
    changed: bool


@dataclass(frozen=True)
class Removal:
    """A training that was removed: its run with all files, and the version that it made.

    Attributes:
        version: None where the run made none, or an earlier try removed it.
        n_bytes: of its files.
    """

    run_id: str
    version: int | None
    n_bytes: int
