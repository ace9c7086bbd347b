"""The way to MLflow: its address, its database, and its errors in our words.

Belongs here: what has to be true before MLflow can be called. Does not: the calls (runs.py, versions.py).
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pipeline.errors import ConfigError, RegistryUnreachable, StorageFailed, VaewatchError

if TYPE_CHECKING:
    import sqlalchemy as sa
    from mlflow import MlflowClient

CONNECT_SECONDS = 5
MIGRATION_TRIES = 5
ADDRESSES = re.compile(r"https?|databricks(-uc)?|(postgresql|mysql|mssql)(\+\w+)?")
USER_AND_PASSWORD = re.compile(r"(?<=://)([^:/@]*)(?::([^@]*))?@")
SECRET_OPTION = re.compile(r"[?&][^=&]*(?:pass|token|secret|key)[^=&]*=([^&]+)", re.IGNORECASE)

DEFAULTS = {  # an operator's own setting wins
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's 7, each pause twice the last, fail after four minutes
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the address it prints holds the password
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # else it replaces the handlers of sqlalchemy's and alembic's loggers
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",  # else a uv.lock in the working folder travels with every model
}
FIXED = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}  # true by default; reading a pickle runs its code


class Connection:
    """MLflow at one address. Nothing is imported or opened before it is first needed."""

    def __init__(self, uri: str) -> None:
        """Note the address.

        Raises:
            ConfigError: MLflow keeps no model registry at such an address.
        """
        self.uri = uri
        self.shown = without_credentials(uri)
        self.database = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
        self.is_server = uri.startswith(("http:", "https:", "databricks"))
        if self.database is None and not ADDRESSES.fullmatch(uri.partition(":")[0]):
            raise ConfigError(
                f"VAEWATCH_TRACKING_URI: MLflow keeps no model registry at {self.shown}; "
                "use sqlite:////folder/mlflow.db, postgresql://… or https://…"
            )

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client, on a database that is ready."""
        self.prepare()
        _configure()
        from mlflow import MlflowClient

        return MlflowClient(self.uri, registry_uri=self.uri)

    @contextmanager
    def asking(self, attempt: str) -> Iterator[MlflowClient]:
        """Yield the client, and translate its errors; see `telling`."""
        with self.telling(attempt):
            yield self.client

    @contextmanager
    def telling(self, attempt: str) -> Iterator[None]:
        """Translate MLflow's errors into ours.

        Args:
            attempt: what is being done, for the message: "register a model of orders".

        Raises:
            RegistryUnreachable: MLflow does not answer, or refuses.
            StorageFailed: a file cannot be read or written.
            ConfigError: the database's driver is not installed.
        """
        try:
            yield
        except VaewatchError:
            raise
        except Exception as fault:
            ours = self._translate(fault, attempt)
            if ours is None:
                raise
            # a traceback shows the whole chain, and with it any password in an earlier message
            raise ours from (None if self._leaks(fault) else fault)

    def prepare(self) -> None:
        """Create MLflow's tables, or upgrade them; any number of processes may do so at once.

        MLflow would do it at first use, but processes that start together then break each other.
        """
        if self.database is not None:
            _prepare_sqlite(self.database)
        elif not self.is_server:  # a tracking server prepares its own database
            _prepare_server(self.uri)

    def _translate(self, fault: Exception, attempt: str) -> VaewatchError | None:
        from alembic.util import CommandError
        from mlflow.exceptions import MlflowException
        from requests import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        reason = _reason(fault)
        for secret in secrets(self.uri):
            reason = reason.replace(secret, "***")
        if isinstance(fault, (MlflowException, RequestException, SQLAlchemyError, CommandError)):
            return RegistryUnreachable(
                f"MLflow at {self.shown} could not {attempt}: {reason}; "
                "check that it runs and that VAEWATCH_TRACKING_URI is right, then try again"
            )
        if isinstance(fault, OSError):
            return StorageFailed(f"could not {attempt}: {reason}")
        if isinstance(fault, ModuleNotFoundError):
            return ConfigError(f"VAEWATCH_TRACKING_URI: {self.shown} needs a driver: {reason}")
        return None

    def _leaks(self, fault: Exception) -> bool:
        chain = "".join(traceback.format_exception(fault))
        return any(secret in chain for secret in secrets(self.uri))


def without_credentials(uri: str) -> str:
    """Return an address fit to be shown and logged: no user, password or options."""
    return uri if uri.startswith("sqlite:") else USER_AND_PASSWORD.sub("***@", uri).partition("?")[0]


def secrets(uri: str) -> list[str]:
    """Return the parts of an address that no message may hold, as written and decoded."""
    if uri.startswith("sqlite:"):
        return []
    found = [password or user for user, password in USER_AND_PASSWORD.findall(uri)]
    found += SECRET_OPTION.findall(uri)
    return [form for secret in found if secret for form in (secret, unquote(secret))]


def _reason(fault: BaseException) -> str:
    """Return the error at the bottom of a chain: MLflow wraps "connection refused" four times over."""
    while inner := fault.__cause__ or (None if fault.__suppress_context__ else fault.__context__):
        fault = inner
    return f"{type(fault).__name__}: {str(fault).strip().partition(chr(10))[0][:300]}"


def _configure() -> None:
    """Configure MLflow in this process; it reads some of this when it is first imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.update(FIXED)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # it logs a stack trace, and then raises the same
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _database_tools() -> Any:
    """Return the module behind `mlflow db upgrade`: untyped and partly private, so the version is pinned."""
    _configure()
    from mlflow.store.db import utils

    return utils


def _prepare_sqlite(database: Path) -> None:
    prepared = database.with_name(f"{database.name}.prepared")
    made_with = version("mlflow")
    if _holds_tables(database) and prepared.exists() and prepared.read_text() == made_with:
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with prepared.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel, however this process ends
        if not _holds_tables(database):
            _create_sqlite(database)
        elif prepared.read_text() != made_with:
            _upgrade_sqlite(database)
        prepared.write_text(made_with)


def _holds_tables(database: Path) -> bool:
    try:
        with database.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        return False
    if start and start != b"SQLite format 3\0":
        raise StorageFailed(f"{database} is not a SQLite database; move it away or set VAEWATCH_TRACKING_URI")
    return bool(start)


def _create_sqlite(database: Path) -> None:
    """Build in memory, then appear at once: a killed start leaves nothing, and 65 tables cost one write."""
    utils = _database_tools()
    draft = database.with_name(f"{database.name}.draft")
    draft.unlink(missing_ok=True)
    engine = utils.create_sqlalchemy_engine("sqlite://")
    _migrate(engine)
    with engine.connect() as connection:
        connection.exec_driver_sql("VACUUM INTO ?", (str(draft),))
    engine.dispose()
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(database)


def _upgrade_sqlite(database: Path) -> None:
    utils = _database_tools()
    engine = utils.create_sqlalchemy_engine(f"sqlite:///{database}")
    revision = utils._get_schema_version(engine)
    backup = database.with_name(f"{database.name}.{revision}")
    if revision != utils._get_latest_schema_revision() and not backup.exists():
        with engine.connect() as connection:
            connection.exec_driver_sql("VACUUM INTO ?", (str(backup),))
    _migrate(engine)
    engine.dispose()


def _prepare_server(uri: str) -> None:
    _configure()
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError

    options = {"connect_timeout": CONNECT_SECONDS} if uri.startswith(("postgresql", "mysql")) else {}
    engine = sa.create_engine(uri, connect_args=options)
    engine.connect().close()  # MLflow would try for 100 seconds before it fails
    for tries_left in reversed(range(MIGRATION_TRIES)):
        try:
            _migrate(engine)
            break
        except SQLAlchemyError:  # another process creates the same tables, and is done when we look again
            if not tries_left:
                raise
            time.sleep(1)
    engine.dispose()


def _migrate(engine: sa.Engine) -> None:
    """Do what `mlflow db upgrade` does, without starting Python again."""
    utils = _database_tools()
    if utils._is_empty_database(engine):
        utils._initialize_tables(engine)
    elif utils._get_schema_version(engine) != utils._get_latest_schema_revision():
        utils._upgrade_db(engine)
