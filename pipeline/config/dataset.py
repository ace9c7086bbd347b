"""What a person may say of a dataset: batches, columns, flagging, promotion, review.

Belongs here: the settings and their bounds. Does not: reading them from a file (files.py), one column by
itself (columns.py), training (training.py), the gates (gates.py), how settings relate (coherence.py), or what
a rule means for data (contracts.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from pipeline.config.coherence import between_settings
from pipeline.config.columns import Column, Derived, Role, Strict
from pipeline.config.cron import OFTEN, WEEKLY, Cron
from pipeline.config.gates import Gates
from pipeline.config.training import Training

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_ADDRESS = re.compile(r"(?:^|/)(?P<scheme>s3[an]?|gc?s|r2|az|abfss?|wasbs?|adl|hdfs|https?):/+(?P<rest>.*)")
# deltalake or a database URL loses such paths
_UNWRITABLE = re.compile(r"[\[\]^|\\?\x00-\x1f]|%[0-9A-Fa-f]{2}")


class Incoming(Strict):
    """Where batches land, and how a path becomes a batch_id."""

    path: str = Field(description="folder that grows; relative to the YAML file")
    files: str = Field(
        "{batch_id}.parquet",
        description="path under the folder; {batch_id} names the batch, and may stand for several nested folders; "
        "* matches anything within a name",
    )
    split: Literal["day", "hour", "month"] | None = Field(
        None, description="cut each delivery into batches by the time column"
    )
    settle_seconds: float = Field(
        30, ge=0, description="a file touched more recently is left for the next look"
    )

    @field_validator("path")
    @classmethod
    def _is_a_folder(cls, path: str) -> str:
        refuse_unreadable(path)
        return path

    @field_validator("files")
    @classmethod
    def _names_batch(cls, files: str) -> str:
        if files.count("{batch_id}") != 1 or files.startswith("/") or ".." in files.split("/"):
            raise ValueError("must be a relative path with {batch_id} in it exactly once")
        return files


class BatchRules(Strict):
    """Rules that refuse a whole batch."""

    min_records: int = Field(1, ge=0)
    max_records: int | None = Field(None, ge=1)
    max_set_aside: float = Field(
        0.05, ge=0, le=1, description="largest share of records that row rules may set aside"
    )
    max_age_days: float | None = Field(
        None, gt=0, description="newest record's age when the batch landed, at most"
    )
    new_columns: Literal["record", "refuse"] = Field(
        "record", description="columns that the contract does not know"
    )


class Scheduling(Strict):
    """How Airflow works a dataset off."""

    discover: Cron = Field(OFTEN, description="cron, UTC: when the folder is listed, doorbell or not")
    group: int = Field(25, ge=1, le=1000, description="a backlog is worked off in runs of up to n batches")
    parallel: int = Field(2, ge=1, description="runs at the same time")


class Flagging(Strict):
    """Which scores are put before a person: one of three rules, and an optional cap."""

    review_budget: float | None = Field(None, gt=0, description="records a normal day flags")
    error_rate: float | None = Field(None, gt=0, lt=1, description="share of normal records flagged")
    false_discovery_rate: float | None = Field(
        None, gt=0, lt=1, description="share of flags that may be normal"
    )
    cap: int | None = Field(
        None, ge=1, description="at most this many flags a batch, the most severe; ties stay"
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Flagging:
        rules = [self.review_budget, self.error_rate, self.false_discovery_rate]
        if sum(rule is not None for rule in rules) != 1:
            raise ValueError("give exactly one of review_budget, error_rate, false_discovery_rate")
        return self


class Promotion(Strict):
    """How a challenger becomes champion. The first good model serves in any mode."""

    mode: Literal["automatic", "approval", "manual"] = Field(
        "automatic", description="a challenger that passes: is promoted, waits for approval, or for a command"
    )
    approval_hours: float = Field(
        24, gt=0, description="a question that nobody has answered for n hours is a rejection"
    )
    holdout: float = Field(
        0.1, ge=0, le=0.5, description="share of records that no version learns from, to compare versions on"
    )
    shadow_days: float = Field(
        0, ge=0, description="days of new batches that a challenger has to be measured on beside the champion"
    )
    gates: Gates = Gates()


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else [] if value is None else value


class Retention(Strict):
    """Which model versions are kept. The rest goes for good, with runs and files."""

    versions: int = Field(
        10,
        ge=1,
        description="how many of the newest stay; so does any that serves, has verdicts, or has published scores",
    )
    schedule: Cron = Field(WEEKLY, description="cron, UTC: when the rest is removed")


class Reviewing(Strict):
    """What joins the flagged records in the review queue, so that what was missed can be estimated."""

    sample_share: float = Field(
        0.1, ge=0, le=10, description="random unflagged records a batch adds, as a share of its flagged ones"
    )
    seed: int = Field(7, ge=0, description="of the choice; the same seed chooses the same records")
    page: str | None = Field(None, description="address of the review page, for links in digests")
    digest_file: str | None = Field(
        None, description="file that each batch's digest is appended to; relative to the home folder"
    )
    webhook: str | None = Field(
        None, description="environment variable that holds the address of a webhook that takes {text} (Slack)"
    )
    email: Annotated[
        list[Annotated[str, Field(pattern=r"^[^@\s,;]+@[^@\s,;]+$")]],
        BeforeValidator(_as_list, json_schema_input_type=list[str] | str | None),
    ] = Field(default_factory=list, description="addresses that each batch's digest is sent to")


def _as_derived(value: Any) -> Any:
    return {"sql": value} if isinstance(value, str) else value


def refuse_unreadable(path: str) -> None:
    """Do nothing where a path can be that of a folder.

    Raises:
        ValueError: it is an address of an object store, perhaps one that a Path has made absolute.
    """
    if found := _ADDRESS.search(path):
        raise ValueError(
            f"{found['scheme']}://{found['rest']} is an address, and only folders can be read: mount the "
            "bucket as one (Mountpoint for S3, gcsfuse, BlobFuse), or copy what is new into a folder"
        )


def refuse_unwritable(path: Path) -> None:
    """Do nothing where tables can lie under a path.

    Raises:
        ValueError: they cannot.
    """
    if found := _ADDRESS.search(str(path)):
        raise ValueError(
            f"{found['scheme']}://{found['rest']} is an address, and what is kept must lie in a folder on a disk "
            "or a network file system (a mounted bucket will not do: commits and locks need more)"
        )
    if found := _UNWRITABLE.search(str(path)):
        raise ValueError(f"tables cannot be stored in {str(path)!r}: a folder's name contains {found[0]!r}")


class Dataset(Strict):
    """One dataset's file: dags/datasets/<dataset>.yaml."""

    name: str = Field(alias="dataset", description="letters, digits, - and _")
    description: str = ""
    incoming: Incoming
    key: Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=list[str] | str | None)] = (
        Field(default_factory=list, description="columns that identify a record; none: its content does")
    )
    time: str | None = Field(None, description="column that says when a record happened")
    columns: dict[str, Column]
    entity: Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=list[str] | str | None)] = (
        Field(
            default_factory=list,
            description="columns that say whose record it is; derived columns look back within one",
        )
    )
    derived: dict[
        str, Annotated[Derived, BeforeValidator(_as_derived, json_schema_input_type=Derived | str)]
    ] = Field(
        default_factory=dict, description="columns computed by SQL: name: expression, or name: {sql, role}"
    )
    look_back_days: float = Field(1, ge=0, description="how far derived columns may look back before a batch")
    batch: BatchRules = BatchRules()
    train: Training = Training()
    schedule: Scheduling = Scheduling()
    flag: Flagging = Flagging(review_budget=20)
    review: Reviewing = Reviewing()
    promote: Promotion = Promotion()
    retention: Retention = Retention()
    storage: str | None = Field(
        None, description="folder of the output tables; default: under the home folder"
    )
    file: SkipJsonSchema[Path | None] = Field(None, exclude=True)  # where it was read from

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} must start with a letter and hold letters, digits, - and _ only (63 at most)"
            )
        return name

    @field_validator("storage")
    @classmethod
    def _can_hold_tables(cls, storage: str | None) -> str | None:
        if storage is not None:
            refuse_unwritable(Path(storage))
        return storage

    @model_validator(mode="after")
    def _fits_together(self) -> Dataset:
        faults = between_settings(
            self.model_dump(include={"key", "time", "incoming", "columns", "entity", "derived", "train"})
        )
        if faults:
            raise ValueError("; ".join(message for _, message in faults))
        return self

    @property
    def named_file(self) -> str:
        """The dataset's file, for use in a sentence."""
        return str(self.file or f"the file of dataset {self.name}")

    @property
    def scored_at_once(self) -> int:
        """How many batches may be scored at once; one where derived columns need the batch before."""
        return 1 if self.derived else self.schedule.parallel

    @cached_property
    def incoming_path(self) -> Path:
        """The folder that grows, absolute."""
        base = self.file.parent if self.file else Path.cwd()
        return (base / Path(self.incoming.path).expanduser()).resolve()

    @cached_property
    def with_derived(self) -> dict[str, Column]:
        """The columns, then the derived ones."""
        return {**self.columns, **{name: derived.column for name, derived in self.derived.items()}}

    @property
    def quantities(self) -> frozenset[str]:
        """The columns, derived ones too, whose whole numbers are no codes."""
        columns = self.with_derived.items()
        return frozenset(name for name, one in columns if one.is_quantity and one.role == "numeric")

    def sources(self, names: Iterable[str]) -> list[str]:
        """Return the file's own columns behind these: themselves, or the sources of a derived one."""
        read = " ".join(self.derived[name].sql if name in self.derived else f'"{name}"' for name in names)
        words = {(quoted or plain).lower() for quoted, plain in re.findall(r'"([^"]+)"|(\w+)', read)}
        return [name for name in self.columns if name.lower() in words]

    def columns_with(self, *roles: Role) -> list[str]:
        """Return names of the columns with one of these roles, derived ones included, in the file's order."""
        return [name for name, column in self.with_derived.items() if column.role in roles]
