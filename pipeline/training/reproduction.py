"""Train a registered version again from its note, and say whether the same model comes out.

Belongs here: which records to read, and where two detectors first differ. Does not: the note and what has
changed since (provenance.py), training (experiment.py), or the registry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.dataset import Dataset
from pipeline.errors import ModelUnusable, NotReady
from pipeline.records import verdicts
from pipeline.records.window import Window, fingerprint
from pipeline.storage.ledger import Ledger
from pipeline.storage.tables import Tables
from pipeline.training import provenance
from pipeline.training.provenance import Note

if TYPE_CHECKING:
    from torch import Tensor

    from vae_core import Progress

ABOUT = "about"  # in detector.json: where a model comes from, not what it consists of


@dataclass(frozen=True)
class Reproduction:
    """What training again came to.

    Attributes:
        difference: where the two models first differ; empty where they are equal to the bit.
        likely: what may have caused it; empty where they are equal.
        since: what has changed since but had no effect, because the training used what was noted.
    """

    difference: str
    likely: tuple[str, ...]
    since: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        return not self.difference


def reproduce(
    today: Dataset,
    note: Note,
    fingerprint: str,
    registered: Path,
    ledger: Ledger,
    tables: Tables,
    *,
    scratch: Path,
    threads: int,
    on_progress: Callable[[Progress], None] | None = None,
) -> Reproduction:
    """Train again with the settings, records, verdicts and seed of then.

    Batches that were delivered or checked again since are read from the table as it was, while its files are
    there.

    Args:
        fingerprint: of the training's data, from the version's tag.
        registered: the detector's folder that the registry keeps.

    Raises:
        ModelUnusable: the note cannot be read, or is not this version's.
        NotReady: none, or hardly any, of the records are there.
    """
    from pipeline.training import experiment

    then = note.dataset(today)
    current, judged = ledger.current(today.name), verdicts.judged(ledger, today.name)
    window, lost = _window(note, today.name, ledger)
    if not window.batches:
        raise NotReady(f"{today.name}: this installation has none of the batches that the version learned")
    if not lost and window.fingerprint != fingerprint:
        raise ModelUnusable(
            f"{today.name}: the note of the training describes other data than this version learned"
        )
    moved = provenance.changed_batches(note, current)
    read, gone = tables, ""
    if moved:
        read = replace(tables, as_of=note.records_version)
        if not read.still_holds([*window.batch_ids, *window.earlier]):
            read, gone = tables, "the records as they were are cleaned up"
    fitted = experiment.fit(then, window, read, scratch, scratch / "checkpoints", threads, on_progress)
    fitted.trained.save(scratch / "detector")
    difference = next(differences(registered, scratch / "detector"), "")
    changed = provenance.changed_settings(note, today)
    changed += provenance.changed_verdicts(note, today.name, *judged)
    likely = [*lost, *(moved if gone else []), *provenance.elsewhere(note, experiment.code_version())]
    if moved and not gone:
        changed += [f"{why}; read as of version {note.records_version} of the table" for why in moved]
    if not difference:
        return Reproduction("", (), (*changed, *likely))
    return Reproduction(
        difference,
        tuple(likely) or ("of something that was not noted: all that was noted is the same",),
        tuple(changed),
    )


def _window(note: Note, dataset: str, ledger: Ledger) -> tuple[Window, list[str]]:
    """Return the window of then, and what cannot be found any more."""
    records = {
        i: (given[0].batch_id, given[0].record_key) for i, given in verdicts.history(ledger, dataset).items()
    }
    states, lost = [], []
    for batch in note.batches:
        known = [
            s for s in ledger.history(dataset, batch["batch_id"]) if s.fingerprint == batch["fingerprint"]
        ]
        if known:
            states.append(replace(known[-1], n_accepted=batch["n_accepted"]))
        else:
            lost.append(f"batch {batch['batch_id']}, as it was delivered then, is not in the ledger any more")
    if missing := [i for i in (*note.left_out, *note.normal) if i not in records]:
        lost.append(f"{len(missing)} verdicts are not in the database any more")
    odd, normal = (tuple(records[i] for i in ids if i in records) for ids in (note.left_out, note.normal))
    n_records = sum(state.n_accepted for state in states)
    known_as = fingerprint(states, odd, normal)
    return Window(tuple(states), n_records, note.records_per_day, known_as, odd, normal), lost


def differences(first: Path, second: Path) -> Iterator[str]:
    """Yield where two saved detectors differ: features, model, calibration, weights. Nothing if equal."""
    from safetensors.torch import load_file

    states = [
        json.loads((folder / "detector.json").read_text(encoding="utf-8")) for folder in (first, second)
    ]
    for part in dict.fromkeys(["features", "vae", *states[0], *states[1]]):
        if part != ABOUT:
            yield from _unlike(states[0].get(part), states[1].get(part), part)
    tensors = [load_file(folder / "weights.safetensors") for folder in (first, second)]
    names = dict.fromkeys(["calibration.scores", *sorted(tensors[0]), *sorted(tensors[1])])
    for name in names:
        if name not in tensors[0] or name not in tensors[1]:
            yield f"{name} is only in the {'registered' if name in tensors[0] else 'new'} model"
        else:
            yield from _unlike_tensors(name, tensors[0][name], tensors[1][name])


def _unlike(was: Any, now: Any, path: str) -> Iterator[str]:
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*was, *now]):
            yield from _unlike(was.get(name), now.get(name), f"{path}.{name}")
    elif isinstance(was, Sequence) and isinstance(now, Sequence) and not isinstance(was, str):
        if len(was) != len(now):
            yield f"{path} has {len(was)} values, now {len(now)}"
        for i, (left, right) in enumerate(zip(was, now, strict=False)):
            yield from _unlike(left, right, f"{path}[{i}]")
    elif was != now and not (was != was and now != now):  # NaN equals NaN here
        yield f"{path} was {was}, is {now}"


def _unlike_tensors(name: str, was: Tensor, now: Tensor) -> Iterator[str]:
    import torch

    if was.shape != now.shape or was.dtype != now.dtype:
        yield f"{name} was {tuple(was.shape)} {was.dtype}, is {tuple(now.shape)} {now.dtype}"
        return
    unlike = (was != now) & ~(torch.isnan(was) & torch.isnan(now)) if was.is_floating_point() else was != now
    if n := int(unlike.sum()):
        most = float((was.double() - now.double())[unlike].abs().max())
        i = int(unlike.flatten().nonzero()[0])
        yield (
            f"{name}: {n} of {unlike.numel()} values differ, by {most:.3g} at most; the first was "
            f"{was.flatten()[i].item()!r}, is {now.flatten()[i].item()!r}"
        )
