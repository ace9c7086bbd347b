"""The database from one release to the next: nothing that people said is lost on the way."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from pipeline.errors import StorageFailed
from pipeline.monitoring import store
from pipeline.records import verdicts
from pipeline.review import judging, queue, statistics
from pipeline.review.filters import Filters
from pipeline.review.groups import groups
from pipeline.review.intake import take_untold
from pipeline.review.queued import ODDNESSES
from pipeline.storage import migrations, review_schema
from pipeline.storage.ledger import Ledger
from pipeline.storage.ledger_schema import metadata
from pipeline.storage.migrations.versions import v0017_oddness

from .review_data import ODD, put, reason, row

_COUNTED = (review_schema.tallies, review_schema.tally_sums)
OLD = """
CREATE TABLE verdicts (number INTEGER NOT NULL, dataset VARCHAR(63) NOT NULL, anomaly_id VARCHAR(32) NOT NULL,
    batch_id VARCHAR(250) NOT NULL, record_key TEXT NOT NULL, verdict VARCHAR(16) NOT NULL, note TEXT NOT NULL,
    by VARCHAR(250) NOT NULL, decided_at DATETIME NOT NULL, PRIMARY KEY (number));
CREATE INDEX ix_verdicts_dataset ON verdicts (dataset);
CREATE TABLE serving (dataset VARCHAR(63) NOT NULL, model_version INTEGER, trained_at DATETIME, PRIMARY KEY (dataset));
INSERT INTO serving VALUES ('payments', 7, '2026-01-01 03:04:05');
INSERT INTO verdicts VALUES (1, 'payments', 'aa', '2026-01-01', 'k1', 'anomaly', 'asked', 'ann', '2026-01-02 03:04:05');
INSERT INTO verdicts VALUES (2, 'payments', 'aa', '2026-01-01', 'k1', 'unsure', '', 'ann', '2026-01-03 03:04:05');
"""


def test_the_tables_are_those_that_the_code_knows(database_url: str) -> None:
    """A column that only the code, or only the database has, is found by a user otherwise."""
    assert review_schema.queue.metadata is store.measures.metadata is metadata
    Ledger(database_url).close()
    engine = sa.create_engine(database_url)
    with engine.connect() as connection:
        elsewhere = {"postgresql": {"ix_queue_page"}, "sqlite": {"ix_queue_order", "ix_queue_id"}}
        only = elsewhere[engine.dialect.name]  # made by the other database alone
        opts = {
            "version_table": migrations.VERSION_TABLE,
            "include_object": lambda _object, name, *_: name not in only,
        }
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_the_newest_step_is_the_one_that_a_fresh_process_looks_for() -> None:
    """A step that nobody runs."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == migrations.HEAD


def test_verdicts_given_before_there_were_migrations_are_kept(tmp_path: Path) -> None:
    """An installation that is updated goes on where it was."""
    file = tmp_path / "ledger.db"
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        for statement in filter(str.strip, OLD.split(";")):
            connection.exec_driver_sql(statement)
    engine.dispose()
    ledger = Ledger(f"sqlite:///{file}")
    given = verdicts.history(ledger, "payments")["aa"]
    assert [(v.verdict, v.by, v.note, v.withdraws, v.act) for v in given] == [
        ("anomaly", "ann", "asked", None, ""),
        ("unsure", "ann", "", None, ""),
    ]
    assert given[0].decided_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert ledger.serving_version("payments") == 7
    trained = datetime(2026, 1, 1, 3, 4, 5, tzinfo=UTC)
    assert (ledger.trained_at("payments"), ledger.train_ended_at("payments")) == (trained, trained)
    ledger.close()


def test_a_database_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    """An old program must not write what a new one would misread."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE vaewatch_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(StorageFailed, match=r"tables are of version 9999, this vaewatch knows them up to"):
        Ledger(url)


def test_the_database_itself_keeps_verdicts_from_being_changed(database_url: str) -> None:
    """Append-only is a promise to the reader of a history, whatever program writes."""
    Ledger(database_url).close()
    engine = sa.create_engine(database_url)
    values = {
        "dataset": "d",
        "anomaly_id": "a",
        "batch_id": "b",
        "record_key": "k",
        "verdict": "normal",
        "note": "",
        "by": "x",
    }
    with engine.begin() as connection:
        connection.execute(
            sa.insert(review_schema.verdicts).values(values | {"decided_at": datetime.now(UTC)})
        )
    for change in (sa.update(review_schema.verdicts).values(by="y"), sa.delete(review_schema.verdicts)):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(change)
    engine.dispose()


def _as_in_0016(connection: sa.Connection) -> None:
    """The tables as they were in 0016, but for the order of pages."""
    is_sqlite = connection.dialect.name == "sqlite"
    for index in ("ix_queue_page" if is_sqlite else "ix_queue_order", "ix_tally_sums"):
        connection.exec_driver_sql(f"DROP INDEX IF EXISTS {index}")
    for table in ("queue", "tallies", "tally_sums"):
        connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN oddness")
    for name in ("tone", "headline"):
        connection.exec_driver_sql(f"ALTER TABLE batches DROP COLUMN {name}")


def test_records_of_before_can_be_asked_for_by_how_they_are_odd(database_url: str) -> None:
    """Read from their reasons as today's are, some hundreds at a time, and counted with them."""
    ledger = Ledger(database_url)
    rows = [row(f"k{i}-{j}", reasons=[one]) for i, (one, _) in enumerate(ODD) for j in range(60)]
    assert len(rows) > 2 * v0017_oddness.CHUNK
    rows += [row("none", reasons=[], signature=review_schema.NO_COLUMN), row("hidden", suppressed=1)]
    rows += [row("two", reasons=[reason("fee", observed="1"), reason()]), row("older", "2026-01-29")]
    drawn = [row(name, kind="sampled", signature="", reasons=[]) for name in ("drawn", "drawn and judged")]
    put(ledger, [*rows, *drawn, row("judged")])
    judged = [row(name)["anomaly_id"] for name in ("judged", "drawn and judged")]
    judging.give(ledger, judged, "normal", by="ann")
    put(ledger, [*rows, drawn[0]])  # those that were judged are cleared now
    asked = [
        Filters(),
        Filters(suppressed=True),
        Filters(since="2026-01-30", kind="cleared"),
        *(Filters(oddness=one) for one in ODDNESSES),
    ]
    before = [(queue.page(ledger, one, limit=2000).rows, queue.counts(ledger, one)) for one in asked]
    with ledger.transaction(write=True) as connection:
        kept = [connection.execute(sa.select(table)).all() for table in _COUNTED]
        _as_in_0016(connection)
        connection.exec_driver_sql("UPDATE vaewatch_version SET version_num = '0016'")
    ledger.close()
    again = Ledger(database_url)
    assert before == [(queue.page(again, one, limit=2000).rows, queue.counts(again, one)) for one in asked]
    found = {one.record_key: one.oddness for one in before[0][0]}
    assert [found[name] for name in ("judged", "two", "none")] == ["above", "below", "no_column"]
    assert {name for name, how in found.items() if not how} == {"drawn", "drawn and judged"}
    with again.transaction() as connection:
        for table, were in zip(_COUNTED, kept, strict=True):
            found = connection.execute(sa.select(table).where(table.c.n > 0)).all()
            assert sorted(found) == sorted(one for one in were if one.n)
    again.close()


def test_groups_of_a_queue_that_was_filled_before_they_were_counted_are_there(database_url: str) -> None:
    """A reviewer who updates on a Tuesday finds Monday's groups."""
    ledger = Ledger(database_url)
    put(ledger, [row("k0"), row("k1"), row("drawn", kind="sampled"), row("hidden", suppressed=1)])
    other = row("other", "2026-01-29", signature="fee↓")
    put(ledger, [other, row("beside", "2026-01-29", signature="fee↓")])
    judging.give(ledger, [row("k1")["anomaly_id"], other["anomaly_id"]], "normal", by="ann")
    before = groups(ledger, Filters()), groups(ledger, Filters(state="open"))
    precision = statistics.review(ledger).precision
    with ledger.transaction(write=True) as connection:
        for table in ("group_tallies", "version_tallies", "flag_rules"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("DROP INDEX ix_queue_id")
        else:
            connection.exec_driver_sql("DROP INDEX ix_queue_page")
            connection.exec_driver_sql("CREATE INDEX ix_queue_order ON queue (day)")  # of 0002, in short
        _as_in_0016(connection)
        for index in ("ix_scorings_version", "ix_verdicts_withdraws"):
            connection.exec_driver_sql(f"DROP INDEX {index}")
        for name in ("kl_weight", "terms"):
            connection.exec_driver_sql(f"ALTER TABLE queue DROP COLUMN {name}")
        for name in ("looks_since", "looked_back"):
            connection.exec_driver_sql(f"ALTER TABLE batches DROP COLUMN {name}")
        connection.exec_driver_sql("ALTER TABLE queue_batches DROP COLUMN told")
        connection.exec_driver_sql("ALTER TABLE serving DROP COLUMN train_ended_at")
        connection.exec_driver_sql("UPDATE vaewatch_version SET version_num = '0005'")
    ledger.close()
    again = Ledger(database_url)
    assert (groups(again, Filters()), groups(again, Filters(state="open"))) == before
    assert [group.n for group in before[0]] == [2, 2]
    assert statistics.review(again).precision == precision
    assert [(one.hits, one.n, one.n_groups) for one in precision] == [(0, 2, 2)]
    assert take_untold(again, "payments", ["2026-01-29", "2026-01-30"]) == []  # nobody is told of what is old
    again.close()
