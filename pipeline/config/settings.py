"""Where an installation keeps things, from the environment.

Belongs here: VAEWATCH_* variables that belong to no dataset. Does not: a dataset's own overrides (files.py).
"""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.config.dataset import refuse_unreadable, refuse_unwritable
from pipeline.errors import ConfigError
from pipeline.misread import wrong

PREFIX = "VAEWATCH_"
CONTROL_GROUPS = Path("/sys/fs/cgroup")
SMTP = re.compile(r"smtps?://([^/@]+@)?[^/@:]+(:[0-9]+)?/?")
TO = "TO_"  # after PREFIX: a setting of another environment, see evaluation/copying.py


class Settings(BaseSettings):
    """Where an installation keeps things. Every field is read from VAEWATCH_<FIELD>."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    home: Path = Path("var")
    datasets: Path = Path("dags/datasets")
    ledger_url: str | None = None
    tracking_uri: str | None = None
    mlflow_page: str | None = None
    registry_prefix: str = Field("vaewatch", pattern=r"^[A-Za-z0-9_-]+$")
    threads: int | None = Field(None, ge=1)
    smtp_url: SecretStr | None = None
    mail_from: str = "vaewatch@localhost"
    demo: str | None = None

    @field_validator("home", "datasets")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @field_validator("datasets")
    @classmethod
    def _can_be_read(cls, path: Path) -> Path:
        refuse_unreadable(str(path))
        return path

    @field_validator("home")
    @classmethod
    def _can_hold_tables(cls, home: Path) -> Path:
        refuse_unwritable(home)
        return home

    @field_validator("smtp_url")
    @classmethod
    def _names_a_server(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not SMTP.fullmatch(url.get_secret_value()):
            raise ValueError(
                "must be smtp://host:port or smtps://host:port, with user:password@ before the host where the server wants a login; %-encoded"
            )
        return url

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
        """Cores this process may really use: those it may run on, or the time its control group is given."""
        return self.threads or min(len(os.sched_getaffinity(0)), quota() or sys.maxsize)


def quota(groups: Path = CONTROL_GROUPS) -> int | None:
    """Return the cores' worth of time that this process is granted, rounded up; None without a limit.

    A container or another control group may limit it.

    Args:
        groups: where the kernel shows control groups, of version 2 or of the controller `cpu` of version 1.
    """
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            granted, period = " ".join((groups / file).read_text() for file in files).split()
        except (OSError, ValueError):
            continue
        return math.ceil(int(granted) / int(period)) if granted not in {"max", "-1"} else None
    return None


def load_settings() -> Settings:
    """Return the settings from the environment.

    Raises:
        ConfigError: with every fault, misspelled names included.
    """
    faults = [
        f"  {name}: unknown; did you mean {PREFIX}{near[0].upper()}?"
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and "__" not in name and (near := _misspelled(name))
    ]
    try:
        settings = Settings()
    except ValidationError as fault:
        faults += [f"  {PREFIX}{'_'.join(map(str, e['loc'])).upper()}: {wrong(e)}" for e in fault.errors()]
    if faults:
        raise ConfigError("environment:\n" + "\n".join(faults))
    return settings


def _misspelled(variable: str) -> list[str]:
    """Return the settings that may be meant; none where the name is right, or resembles none."""
    name = variable.removeprefix(PREFIX).lower()
    if name.startswith(TO.lower()):
        return []
    return (
        []
        if name in Settings.model_fields
        else difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.8)
    )
