"""Train on what was accepted and register the version.

Belongs here: the step train, and when it is due. Does not: the training (training/experiment.py) or the
window (records/window.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.dataset import Dataset
from pipeline.installation import Installation
from pipeline.steps.keys import Say
from pipeline.steps.receipts import Trained

if TYPE_CHECKING:
    from pipeline.records.window import Window
    from pipeline.registry import ModelVersion
    from pipeline.training.provenance import Record
    from vae_core import Progress

PARTS = 5  # of a fit; progress is said after each
AGAIN = "trained again, with the records for calibration:"


def train(
    here: Installation,
    dataset_name: str,
    *,
    force: bool = False,
    say: Say = lambda _: None,
    on_progress: Callable[[Any], None] | None = None,
) -> Trained:
    """Train on the accepted window, log and register the model.

    It becomes challenger once an evaluation passes it, and serves once it is promoted. Records that people
    found to be anomalies are not learned; with the normal ones they weigh the score. The same records,
    contract, settings and code give the version that is there already.

    Args:
        force: train even where `train.when` finds no occasion; otherwise the outcome is then `skipped`, with
            the reasons.
        on_progress: called with each fit's progress, which is then not said.

    Raises:
        NotReady: too few accepted records.
        ConfigError: vae_core refuses a value of `train.recipe`: nothing was read.
        ModelUnusable: the training diverged; nothing was registered.
        RegistryUnreachable, StorageFailed: nothing was registered; a retry goes on from the last checkpoint.
    """
    from pipeline.detection.recipe import recipe_of
    from pipeline.records import verdicts
    from pipeline.records.window import choose_window
    from pipeline.report import metrics
    from pipeline.report.training import path_of
    from pipeline.review.loop import log_review
    from pipeline.training import experiment, training_set

    dataset = here.dataset(dataset_name)
    recipe_of(dataset)  # an impossible value is reported before the window is read
    log_review(here, dataset)  # of the existing versions, whatever becomes of tonight
    batches = list(here.ledger.current(dataset.name).values())
    judged = verdicts.judged(here.ledger, dataset.name)
    window = choose_window(dataset, batches, *judged)
    key = training_set.training_key(dataset, window, experiment.code_version())
    checkpoints = here.settings.home / "work" / dataset.name / "checkpoints" / key
    version = known = here.registry.made_by(dataset.name, key)
    if version is None:
        if not force and (why_not := _no_occasion(here, dataset, window, judged, say)):
            here.ledger.set_train_ended(dataset.name, datetime.now(UTC))
            metrics.publish(here, say)
            return Trained("train", dataset.name, "skipped", reason=why_not)
        version = _trained(here, dataset, window, key, checkpoints, say, on_progress)
    here.tidy(dataset)  # also after an earlier try that was killed just after registering
    shutil.rmtree(checkpoints, ignore_errors=True)
    _note_end(here, dataset, known)
    metrics.publish(here, say)
    page = path_of(here, dataset, version)
    return Trained(
        "train",
        dataset.name,
        "unchanged" if known else "trained",
        model_version=version.version,
        alias=", ".join(version.aliases),
        reason="the same records, verdicts, settings and code made this version already" if known else "",
        notes=version.notes,
        page=str(page or ""),
        next="" if known else f"have it judged: vaewatch evaluate {dataset.name}",
        metrics=dict(version.metrics),
        training_key=key,
    )


def _note_end(here: Installation, dataset: Dataset, known: ModelVersion | None) -> None:
    """Note when the step ended and when the newest training did.

    A version that was there already counts as of its registration, which a process killed just after that
    could not note.
    """
    now, before = datetime.now(UTC), here.ledger.trained_at(dataset.name)
    trained_at = max(known.created_at, before or known.created_at) if known else now
    here.ledger.set_trained(dataset.name, trained_at, now)


def _no_occasion(
    here: Installation,
    dataset: Dataset,
    window: Window,
    judged: tuple[Sequence[Record], Sequence[Record]],
    say: Say,
) -> str:
    """Return why not to train tonight, by `train.when`; empty where there is an occasion."""
    from pipeline.training import occasion

    tonight = occasion.find(dataset, window, judged, here.registry, here.ledger, datetime.now(UTC))
    why = "; ".join(tonight.reasons)
    if not tonight.train:
        say(f"no occasion to train: {why}")
        return why
    if why:
        say(f"an occasion to train: {why}")
    return ""


def _trained(
    here: Installation,
    dataset: Dataset,
    window: Window,
    key: str,
    checkpoints: Path,
    say: Say,
    on_progress: Callable[[Progress], None] | None,
) -> ModelVersion:
    """Train, put the training's page beside the others, and register."""
    from pipeline.notify import alerts
    from pipeline.report import sheet
    from pipeline.training import alarmed, experiment, training_set

    say(training_set.amount(dataset, window))
    found = alarmed.of(here.ledger, dataset.name, window)
    doubts = [alarmed.words(dataset, found, len(window.batches))] if found else []
    tables, shown = here.tables(dataset), follow(dataset, say, on_progress)
    with here.scratch(dataset, "train") as scratch:
        run = experiment.train(
            dataset, window, tables, key, scratch, checkpoints, here.settings.cores, shown, doubts
        )
        if run.report is not None:
            sheet.write(here.training_page(dataset, key), run.report.read_text(encoding="utf-8"))
        version = here.registry.register(run)
    if alarmed.since(found, here.ledger.trained_at(dataset.name)):
        alerts.tell_learned_alarm(here, dataset, version.version, doubts[0], say)
    return version


def follow(
    dataset: Dataset, say: Say, on_progress: Callable[[Progress], None] | None
) -> Callable[[Progress], None]:
    """Show how the two fits go, or say it at every fifth of each one's steps.

    After the first one, thresholds are calibrated. The second fit is the one that will serve. After it the
    critic is trained, silently and for as long as a fit. Both are said either way.
    """
    has_critic = dataset.train.recipe.get("critic_steps") != 0
    last, is_second = 0, False

    def tell(now: Progress) -> None:
        nonlocal last, is_second
        if now.step <= last:  # it begins anew
            last, is_second = 0, True
        if on_progress is not None:
            on_progress(now)
        elif PARTS * last // now.steps < PARTS * now.step // now.steps:
            say(
                f"{AGAIN if is_second else 'trained'} {now.step:,} of {now.steps:,} steps, loss {now.loss:.2f} nats a record"
            )
        last = now.step
        if now.step < now.steps:
            return
        if not is_second:
            say("calibrating, by records that it has not learned")
        elif has_critic:
            say(
                "learning to tell which cell of a record is wrong, for the reasons; this takes about as long as a fit"
            )

    return tell


def is_due(here: Installation, dataset: Dataset) -> bool:
    """Return whether nothing was trained within a day."""
    trained_at = here.ledger.trained_at(dataset.name)
    return trained_at is None or datetime.now(UTC) - trained_at > timedelta(days=1)


def not_due(here: Installation, dataset: Dataset) -> str:
    """Say why no training is due, and how to have it all the same."""
    trained_at = here.ledger.trained_at(dataset.name)
    at = f" of {trained_at:%Y-%m-%d %H:%M} UTC" if trained_at else ""
    return (
        f"none is due, the newest training{at} is less than a day old; sooner: vaewatch train {dataset.name}"
    )
