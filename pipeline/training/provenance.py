"""What a training was made from: noted beside its model, and compared with what is there now.

Belongs here: the note of a training, and what has changed since. Does not: training again (reproduction.py),
or where notes are kept (registry/). A note holds no value of a record and no address: batches by fingerprint,
records by anomaly_id, settings as the dataset's file gives them.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pydantic import ValidationError

from pipeline.config.dataset import Dataset
from pipeline.errors import ModelUnusable
from pipeline.misread import sentence_of
from pipeline.records.verdicts import anomaly_id
from pipeline.records.window import Window
from pipeline.storage.ledger import BatchState
from pipeline.training.training_set import NOT_OF_THE_MODEL

FORMAT = 1
PARTS = ("name", "key", "time", "columns", "entity", "derived", "look_back_days", "batch", "train", "flag")
# settings of other parts that affect what is learned
INSIDE = {"incoming": {"split"}, "promote": {"holdout"}}
LIBRARIES = ("torch", "numpy", "pyarrow", "duckdb")
Record = tuple[str, str]  # batch_id, record_key


@dataclass(frozen=True)
class Note:
    """What a training was made from.

    Attributes:
        settings: the dataset's, as its file gave them.
        batches: batch_id, fingerprint, contract_hash and n_accepted, in the order of the window.
        left_out, normal: anomaly_ids of records that people had judged.
        records_version: of the table `records` that was read.
        code_version: of the code that determines a model.
        machine: libraries, processor and device, by name.
    """

    settings: Mapping[str, Any]
    batches: Sequence[Mapping[str, Any]]
    left_out: Sequence[str]
    normal: Sequence[str]
    records_per_day: float
    records_version: int
    code_version: str
    machine: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, **vars(self)}

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Note:
        """Parse a note.

        Raises:
            ModelUnusable: another vaewatch wrote it in a format unknown to this one.
        """
        if raw.get("format") != FORMAT:
            raise ModelUnusable(
                f"the note of its training has format {raw.get('format')}, this vaewatch reads {FORMAT}"
            )
        return cls(**{name: value for name, value in raw.items() if name != "format"})

    def dataset(self, today: Dataset) -> Dataset:
        """Return the dataset with the contract and settings of then; the rest is today's.

        Raises:
            ModelUnusable: this vaewatch does not know a setting of then.
        """
        now, then = today.model_dump(by_alias=True), dict(self.settings)
        then |= {name: {**now[name], **then[name]} for name in INSIDE}
        try:
            return Dataset.model_validate({**now, **then, "file": today.file})
        except ValidationError as fault:
            reasons = "; ".join(
                f"{'.'.join(map(str, e['loc']))}: {sentence_of(e['msg'])}" for e in fault.errors()
            )
            raise ModelUnusable(
                f"{today.name}: vaewatch {version('vaewatch')} cannot read the settings that were trained with: {reasons}"
            ) from fault


def note(dataset: Dataset, window: Window, *, records_version: int, code_version: str) -> Note:
    """Describe what a training on this window is made from."""
    batches = [
        {name: getattr(batch, name) for name in ("batch_id", "fingerprint", "contract_hash", "n_accepted")}
        for batch in window.batches
    ]
    odd, normal = (
        [anomaly_id(dataset.name, *record) for record in records]
        for records in (window.left_out, window.normal)
    )
    return Note(
        _settings(dataset),
        batches,
        odd,
        normal,
        window.records_per_day,
        records_version,
        code_version,
        machine(),
    )


def machine() -> dict[str, str]:
    """Return whatever may round differently elsewhere. Threads do not: a fit runs each kernel on one."""
    import torch

    found = {name: version(name) for name in LIBRARIES} | {"torch": torch.__version__}
    return found | {
        "python": platform.python_version(),
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def elsewhere(then: Note, code_version: str) -> list[str]:
    """Return what could make the same arithmetic on the same records end differently."""
    found = []
    if then.code_version != code_version:
        found.append(f"the digest of the code: it was {then.code_version}, here it is {code_version}")
    found += [
        f"{name}: it was {then.machine.get(name, 'not noted')}, here it is {value}"
        for name, value in machine().items()
        if then.machine.get(name) != value
    ]
    return found


def changed_settings(then: Note, today: Dataset) -> list[str]:
    """Return settings and contract terms that have changed, by the file's key, with both values."""
    changed = settings_between(then.settings, _settings(today))
    return [f"{name} was {was}, is {now}" for name, (was, now) in changed.items()]


def settings_between(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return settings that differ between two notes and determine the model, with both values."""
    before, after = dict(_leaves(was)), dict(_leaves(now))
    skipped = tuple(f"train.{name}" for name in NOT_OF_THE_MODEL)
    return {
        name: (_shown(before.get(name)), _shown(after.get(name)))
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name) and not name.startswith(skipped)
    }


def changed_batches(then: Note, current: Mapping[str, BatchState]) -> list[str]:
    """Return batches whose records are not those that were learned, each with what became of it."""
    return [why for batch in then.batches if (why := _change(batch, current.get(batch["batch_id"])))]


def changed_verdicts(then: Note, dataset: str, odd: Sequence[Record], normal: Sequence[Record]) -> list[str]:
    """Return how verdicts on the window's records have changed since."""
    inside = {batch["batch_id"] for batch in then.batches}
    found = []
    for what, was, now in (("anomalies", then.left_out, odd), ("normal records", then.normal, normal)):
        new, gone = turned(was, dataset, [record for record in now if record[0] in inside], now)
        if new or gone:
            found.append(f"verdicts: {new} {what} added since, {gone} no longer judged so")
    return found


def turned(
    was: Sequence[str], dataset: str, learned: Sequence[Record], held: Sequence[Record]
) -> tuple[int, int]:
    """Count the judged records that a training would newly learn, and those no longer judged as they were.

    Args:
        was: anomaly_ids that were learned.
        learned: records that it would learn. held: all records judged so now, wherever they are.
    """
    ids, still = ({anomaly_id(dataset, *record) for record in records} for records in (learned, held))
    return len(ids - set(was)), len(set(was) - still)


def _change(then: Mapping[str, Any], now: BatchState | None) -> str:
    name = f"batch {then['batch_id']}"
    if now is None:
        return f"{name} is not in the ledger any more"
    when, n = f"{now.validated_at:%Y-%m-%d %H:%M UTC}", then["n_accepted"]
    if now.fingerprint != then["fingerprint"]:
        came = f"refused: {now.reason}" if now.status == "refused" else f"{now.n_accepted:,} now"
        return f"{name} was delivered again ({when}) with other content: {n:,} records accepted then, {came}"
    if (now.contract_hash, now.n_accepted) != (then["contract_hash"], n) or now.status == "refused":
        return f"{name} was checked again ({when}): {n:,} records accepted then, {now.n_accepted:,} now"
    return ""


def _settings(dataset: Dataset) -> dict[str, Any]:
    kept: dict[str, Any] = {**dict.fromkeys(PARTS, True), **INSIDE}
    return dataset.model_dump(mode="json", by_alias=True, include=kept)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path, value


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)
