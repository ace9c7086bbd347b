"""Settings of an installation and the YAML file of a dataset.

Belongs here: what a person may write, read once and checked whole, every fault in one message with its line.
Does not: what a rule means for data (contracts.py), or where a table is (tables.py).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.errors import ConfigError

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # seven times faster, where it was built
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
DECIMAL = re.compile(r"decimal\((\d{1,2}), ?(\d{1,2})\)")
PLAIN_TYPES = ("float", "int", "bool", "string", "date", "timestamp", "timestamp_utc", "other")
Role = Literal["numeric", "categorical", "context", "ignored"]
NUMBERS = ("float", "int", "decimal")
UNWRITABLE = re.compile(
    r"[\[\]^|\\?\x00-\x1f]|%[0-9A-Fa-f]{2}"
)  # deltalake or a database URL loses such paths


@cache
def _refused_by_duckdb(pattern: str) -> str:
    """Why DuckDB, which will match it, refuses a pattern: it knows no look-around and no back-references."""
    import duckdb

    try:
        duckdb.execute(
            "SELECT regexp_full_match('', ?)", [pattern]
        )  # the process's shared connection: no opening
    except duckdb.Error as fault:
        return str(fault)
    return ""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Strict):
    """What one column promises, and what the model does with it."""

    type: str = Field(
        description="float, int, bool, string, date, timestamp, timestamp_utc, decimal(p,s) or other"
    )
    role: Role = Field(
        "ignored", description="numeric and categorical are modelled, context conditions the model"
    )
    required: bool = Field(False, description="a missing value sets the record aside")
    min: float | None = Field(None, allow_inf_nan=False, description="smallest accepted value (numbers)")
    max: float | None = Field(None, allow_inf_nan=False, description="largest accepted value (numbers)")
    values: list[str] | None = Field(None, description="accepted values (string); anything else is set aside")
    pattern: str | None = Field(
        None, description="regular expression (RE2) that the whole text must match (string)"
    )

    @field_validator("type")
    @classmethod
    def _known_type(cls, type_: str) -> str:
        decimal = DECIMAL.fullmatch(type_)
        if type_ not in PLAIN_TYPES and not decimal:
            raise ValueError(
                f'must be "decimal(p,s)", in quotes, or one of {", ".join(PLAIN_TYPES)}; is {type_!r}'
            )
        if not decimal:
            return type_
        precision, scale = int(decimal[1]), int(decimal[2])
        if not max(1, scale) <= precision <= 38:
            raise ValueError(f"{type_} needs scale <= precision <= 38, and a precision of at least 1")
        return f"decimal({precision},{scale})"

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            fault = _refused_by_duckdb(pattern)
            if fault:
                raise ValueError(f"is not a regular expression: {fault}")
        return pattern

    @property
    def is_number(self) -> bool:
        return self.type.startswith(NUMBERS)

    @model_validator(mode="after")
    def _rules_fit_type(self) -> Column:
        faults = []
        if self.role == "numeric" and not (self.is_number or self.type == "bool"):
            faults.append(f"role numeric needs a number, type is {self.type}")
        if self.role == "categorical" and self.type not in {"string", "bool", "int", "float"}:
            faults.append(f"role categorical needs string, bool, int or float, type is {self.type}")
        if self.type == "other" and self.role != "ignored":
            faults.append("type other (nested, binary, time of day) can only have role ignored")
        if not self.is_number and (self.min is not None or self.max is not None):
            faults.append(f"min and max are for numbers, type is {self.type}")
        if self.min is not None and self.max is not None and self.min > self.max:
            faults.append(f"min {self.min:g} is above max {self.max:g}")
        if self.type != "string" and (self.values is not None or self.pattern is not None):
            faults.append(f"values and pattern are for strings, type is {self.type}")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class Incoming(_Strict):
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

    @field_validator("files")
    @classmethod
    def _names_batch(cls, files: str) -> str:
        if files.count("{batch_id}") != 1 or files.startswith("/") or ".." in files.split("/"):
            raise ValueError("must be a relative path with {batch_id} in it exactly once")
        return files


class BatchRules(_Strict):
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


class Training(_Strict):
    """When to retrain, on what, and how."""

    schedule: str = Field("0 2 * * *", description="cron, UTC")
    window_days: float = Field(30, gt=0, description="batches of the newest n days are learned from")
    min_records: int = Field(1000, ge=50, description="no training below this many accepted records")
    max_records: int = Field(
        200_000, ge=50, description="sampled down to this many, the same ones every time"
    )
    holdout: float = Field(
        0.2, gt=0, lt=1, description="newest share of the window, kept from training, for calibration"
    )
    seed: int = Field(7, ge=0)
    deadline_hours: float = Field(
        4, gt=0, description="a training still running after n hours raises an alert"
    )
    recipe: dict[str, float | int | str | None] = Field(
        default_factory=dict, description="overrides of vae_core's recipe, e.g. steps, trim, kl_weight"
    )


class Scheduling(_Strict):
    """How Airflow works a dataset off."""

    discover: str = Field("*/5 * * * *", description="cron, UTC: when the folder is listed, doorbell or not")
    group: int = Field(25, ge=1, le=1000, description="a backlog is worked off in runs of up to n batches")
    parallel: int = Field(2, ge=1, description="runs at the same time")


class Flagging(_Strict):
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


class Promotion(_Strict):
    """How a challenger becomes champion. The first good model always does."""

    mode: Literal["automatic", "manual"] = "automatic"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else [] if value is None else value


def _reachable(path: Path) -> Path:
    if found := UNWRITABLE.search(str(path)):
        raise ValueError(f"tables cannot lie in {str(path)!r}: {found[0]!r} in a folder's name")
    return path


class Dataset(_Strict):
    """One dataset's file: dags/datasets/<dataset>.yaml."""

    dataset: str = Field(description="name; letters, digits, - and _")
    description: str = ""
    incoming: Incoming
    key: Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=list[str] | str | None)] = (
        Field(default_factory=list, description="columns that identify a record; none: its content does")
    )
    time: str | None = Field(None, description="column that says when a record happened")
    columns: dict[str, Column]
    batch: BatchRules = BatchRules()
    train: Training = Training()
    schedule: Scheduling = Scheduling()
    flag: Flagging = Flagging(review_budget=20)
    promote: Promotion = Promotion()
    storage: str | None = Field(
        None, description="folder of the output tables; default: under the home folder"
    )
    file: SkipJsonSchema[Path | None] = Field(None, exclude=True)  # where it was read from

    @field_validator("dataset")
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
            _reachable(Path(storage))
        return storage

    @model_validator(mode="after")
    def _fits_together(self) -> Dataset:
        faults = _between(self.model_dump(include={"key", "time", "incoming", "columns"}))
        if faults:
            raise ValueError("; ".join(message for _, message in faults))
        return self

    @cached_property
    def incoming_path(self) -> Path:
        """The folder that grows, absolute."""
        base = self.file.parent if self.file else Path.cwd()
        return (base / Path(self.incoming.path).expanduser()).resolve()

    def columns_with(self, *roles: Role) -> list[str]:
        """Names of the columns with one of these roles, in the file's order."""
        return [name for name, column in self.columns.items() if column.role in roles]


def _between(raw: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """Faults between settings, and where; what is faulty in itself is passed over."""
    columns, time, key = raw.get("columns"), raw.get("time"), _as_list(raw.get("key"))
    if not isinstance(columns, dict):
        return []
    promised = {name: column if isinstance(column, dict) else {} for name, column in columns.items()}
    faults: list[tuple[tuple[str, ...], str]] = [
        (("key",), f"key column {name!r} is not among the columns")
        for name in (key if isinstance(key, list) else [])
        if isinstance(name, str) and name not in promised
    ]
    if isinstance(time, str):
        type_ = promised.get(time, {}).get("type")
        if time not in promised:
            faults.append((("time",), f"time column {time!r} is not among the columns"))
        elif isinstance(type_, str) and type_ not in {"date", "timestamp", "timestamp_utc"}:
            faults.append((("time",), f"time column {time!r} has type {type_}"))
    incoming = raw.get("incoming")
    if isinstance(incoming, dict) and incoming.get("split") and time is None:
        faults.append((("incoming", "split"), "needs a time column: set `time`"))
    if all(column.get("role", "ignored") in ("context", "ignored") for column in promised.values()):
        faults.append((("columns",), "no column has role numeric or categorical: there is nothing to model"))
    if promised.get("", {}).get("type", "other") != "other":
        faults.append((("columns", ""), "a column without a name can only have type other"))
    folded = [str(name).casefold() for name in promised]
    twice = sorted(str(name) for name in promised if folded.count(str(name).casefold()) > 1)
    if twice:
        message = f"columns {', '.join(twice)} differ in case only, which tables cannot hold"
        faults.append((("columns", twice[-1]), message))
    return faults


class Settings(BaseSettings):
    """Where an installation keeps things. Every field is read from VAEWATCH_<FIELD>."""

    model_config = SettingsConfigDict(env_prefix="VAEWATCH_", extra="ignore", frozen=True)

    home: Path = Path("var")
    datasets: Path = Path("dags/datasets")
    ledger_url: str | None = None
    tracking_uri: str | None = None
    threads: int | None = Field(None, ge=1)

    @field_validator("home", "datasets")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @field_validator("home")
    @classmethod
    def _can_hold_tables(cls, home: Path) -> Path:
        return _reachable(home)

    @property
    def ledger(self) -> str:
        return self.ledger_url or f"sqlite:///{self.home / 'ledger.db'}"

    @property
    def tracking(self) -> str:
        return (
            self.tracking_uri
            or os.environ.get("MLFLOW_TRACKING_URI")
            or f"sqlite:///{self.home / 'mlflow.db'}"
        )

    @property
    def cores(self) -> int:
        """Cores this process may really use."""
        return self.threads or len(os.sched_getaffinity(0))


def load_settings() -> Settings:
    """The settings from the environment.

    Raises:
        ConfigError: with every fault.
    """
    try:
        return Settings()
    except ValidationError as fault:
        lines = [f"  VAEWATCH_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in fault.errors()]
        raise ConfigError("environment:\n" + "\n".join(lines)) from fault


def load_datasets(folder: Path) -> dict[str, Dataset]:
    """Every dataset file of a folder, by name.

    Raises:
        ConfigError: with every fault of every file, or where two files name the same dataset.
    """
    found: dict[str, Dataset] = {}
    faults = []
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            dataset = load_dataset(path)
        except ConfigError as fault:
            faults.append(str(fault))
            continue
        if dataset.dataset in found:
            faults.append(f"{path}: dataset {dataset.dataset!r} is also in {found[dataset.dataset].file}")
        found[dataset.dataset] = dataset
    if faults:
        raise ConfigError("\n".join(faults))
    return found


def load_dataset(path: Path) -> Dataset:
    """One dataset file, with overrides from VAEWATCH_<DATASET>__<SECTION>__<KEY> in the environment.

    Raises:
        ConfigError: every fault in one message, with line numbers and the nearest known key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=YAML_LOADER)
        raw = yaml.load(text, Loader=YAML_LOADER)  # noqa: S506  # the safe loader
        twice = [f"  line {line}: {key!r} is given twice" for key, line in _duplicates(root)]
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as fault:
        raise ConfigError(f"{path}: {fault}") from fault
    if not isinstance(raw, dict) or root is None:
        raise ConfigError(f"{path}: must be a mapping of settings, see docs/reference/dataset.md")
    if "file" in raw:
        twice.append(f"  {_line_of(root, ('file',))}file: unknown key; the file's own path is known")
    variables = _override(raw, os.environ)
    faults: list[str] = []
    try:
        dataset = Dataset.model_validate({**raw, "file": path.absolute()})
    except ValidationError as fault:
        found = [(e["loc"], _describe(e)) for e in fault.errors() if e["loc"]]
        found += [(loc, f"{'.'.join(loc)}: {message}") for loc, message in _between(raw)]
        faults = [f"  {_origin(root, variables, loc)}{message}" for loc, message in found]
    if twice or faults:
        raise ConfigError(f"{path}:\n" + "\n".join(twice + faults))
    return dataset


def _override(raw: dict[str, Any], environment: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Lay values from the environment over a file's; returns which variable set what."""
    prefix = f"VAEWATCH_{str(raw.get('dataset', '')).upper().replace('-', '_')}__"
    set_by: dict[tuple[str, ...], str] = {}
    for variable in sorted(name for name in environment if name.startswith(prefix)):
        loc: tuple[str, ...] = ()
        node = raw
        *sections, last = variable.removeprefix(prefix).lower().split("__")
        for section in sections:
            loc += (_same_key(node, section),)
            if not isinstance(node.get(loc[-1]), dict):
                node[loc[-1]] = {}
            node = node[loc[-1]]
        loc += (_same_key(node, last),)
        try:
            node[loc[-1]] = yaml.safe_load(environment[variable])
        except (ValueError, yaml.YAMLError) as fault:
            raise ConfigError(f"{variable}: {fault}") from fault
        set_by[loc] = variable
    return set_by


def _same_key(node: Mapping[str, Any], lowered: str) -> str:
    return next((key for key in node if str(key).lower() == lowered), lowered)


def _origin(root: yaml.Node, variables: Mapping[tuple[str, ...], str], loc: tuple[Any, ...]) -> str:
    """The variable that set this, else the line, else a variable that set something in it."""
    exact = [variable for set_, variable in variables.items() if loc[: len(set_)] == set_]
    inside = [variable for set_, variable in variables.items() if set_[: len(loc)] == loc]
    line = _line_of(root, loc)
    return f"{exact[0]}: " if exact else line or "".join(f"{variable}: " for variable in inside[:1])


def _describe(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["loc"][-1] == "[key]":
        return f"{'.'.join(error['loc'][:-2])}: YAML reads a name as {error['input']!r}: put it in quotes"
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        known = _known_keys(Dataset, parents)
        near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _known_keys(model: type[BaseModel], parents: list[Any]) -> list[str]:
    for part in parents:
        field = model.model_fields.get(str(part))
        if field is not None:
            inner = [a for a in (field.annotation, *get_args(field.annotation)) if isinstance(a, type)]
            model = next((a for a in inner if issubclass(a, BaseModel)), model)
    return [name for name in model.model_fields if name != "file"]


def _line_of(node: yaml.Node, loc: tuple[Any, ...]) -> str:
    line = None
    for part in loc:
        if not isinstance(node, yaml.MappingNode):
            break
        for key, value in node.value:
            if _is_key(key, part):
                node, line = value, key.start_mark.line + 1
                break
    return f"line {line}: " if line else ""


def _is_key(key: yaml.Node, part: Any) -> bool:
    """Whether pydantic means this key; YAML reads yes as True, and pydantic calls that 1."""
    read = yaml.constructor.SafeConstructor().construct_object(key)
    return part in {key.value, read} or part == str(read)


def _duplicates(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.value, key.start_mark.line + 1
            seen.add(key.value)
            yield from _duplicates(value)
