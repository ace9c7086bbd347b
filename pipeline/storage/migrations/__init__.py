"""The installation's database, from one release's tables to the next's, by Alembic.

Belongs here: the steps in versions/, and running those that are missing. Does not: what a table means
(ledger.py, storage/review_schema.py). Importing this imports no Alembic: a database that is up to date is
opened without it.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from pipeline.errors import StorageFailed

HEAD = "0019"
VERSION_TABLE = "vaewatch_version"  # Airflow's and MLflow's may be in the same database


def is_current(engine: sa.Engine) -> bool:
    """Return whether the tables are this release's.

    Raises:
        StorageFailed: they are a later release's.
    """
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table(VERSION_TABLE):
            return False
        found = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar_one_or_none()
    if found is not None and found > HEAD:
        raise StorageFailed(
            f"its tables are of version {found}, this vaewatch knows them up to {HEAD}: install the release that "
            "wrote them, or a later one"
        )
    return bool(found == HEAD)


def upgrade(connection: sa.Connection) -> None:
    """Run the steps that are missing, inside the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
