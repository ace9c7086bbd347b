"""`make bench-review`: how long the review queue takes to answer, at a million flagged records, on SQLite or
PostgreSQL.

Belongs here: filling a queue with made-up records and timing what the page asks of it. Does not: a pass or a
fail; a test that fails on a slow afternoon is no test.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from fastapi import Request
from fastapi.testclient import TestClient

from pipeline.config.settings import Settings
from pipeline.installation import Installation
from pipeline.records.verdicts import OPINIONS, anomaly_id
from pipeline.review import effects, judging, queue, suppression
from pipeline.review import statistics as review_statistics
from pipeline.review.filters import BANDS, Filters, Place
from pipeline.review.groups import groups
from pipeline.review.intake import QueueBatch, replace_batch
from pipeline.storage.ledger import Ledger
from pipeline.web.access import Reviewer
from pipeline.web.app import create_app
from tests.pipeline.postgresql import server

N_COLUMNS, DAYS, DATASETS = 20, 365, ("payments", "orders", "sensors")
ODD = ("above", "below", "together", "missing")  # in each column
SERVES = 4  # the version on whose flags most verdicts are
DATASET = (
    "dataset: {name}\nincoming: {{path: incoming}}\ncolumns:\n  column_0: {{type: float, role: numeric}}\n"
)
SCORED_AT = datetime(2026, 6, 1, tzinfo=UTC)


def main() -> None:
    """Fill, ask, print."""
    parser = argparse.ArgumentParser(prog="make bench-review", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--judged", type=int, default=20_000, help="records with a verdict")
    parser.add_argument("--keep", type=Path, help="folder for the database, kept and used again")
    parser.add_argument(
        "--postgresql", action="store_true", help="on a PostgreSQL of our own, gone afterwards"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        file = (chosen.keep or Path(folder)) / "bench.db"
        fresh = chosen.postgresql or not file.exists()
        url = f"sqlite:///{file}"
        if chosen.postgresql:
            address = stack.enter_context(server("shared_buffers=512MB", "max_wal_size=4GB"))
            url = address.format(name="postgres")
        ledger = Ledger(url)
        if fresh:
            _fill(ledger, chosen.records, chosen.judged)
        with ledger.transaction() as connection:
            size = "pg_database_size('postgres')" if chosen.postgresql else "page_count * page_size FROM pragma_page_count(), pragma_page_size()"  # fmt: skip
            print(
                f"{chosen.records} records, {connection.exec_driver_sql(f'SELECT {size}').scalar_one() / 1e9:.2f} GB"
            )
        _analyse(ledger)
        with _browser(ledger, url, Path(folder)) as browser:
            _ask(ledger, browser)
        ledger.close()


@contextlib.contextmanager
def _browser(ledger: Ledger, url: str, home: Path) -> Iterator[TestClient]:
    """The page as a browser gets it, without the network: the queries, the templates, the guard."""

    async def identify(request: Request) -> Reviewer:
        return Reviewer("bench", may_write=True, is_ambient=False)

    identify.__annotations__ = {"request": Request}
    here = Installation(Settings(home=home, datasets=home, ledger_url=url))
    here.ledger = ledger
    for name in DATASETS:  # served, so that a budget is suggested
        (home / f"{name}.yaml").write_text(DATASET.format(name=name))
        ledger.set_serving(name, SERVES)
    yield TestClient(create_app(here, identify=identify, secret=b"bench"), base_url="http://localhost")


def _analyse(ledger: Ledger) -> None:
    """What PostgreSQL's autovacuum does within minutes of a night's work."""
    with ledger.transaction() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("ANALYZE")


def _fill(ledger: Ledger, n_records: int, n_judged: int) -> None:
    """Batches of one day each, three datasets; written straight into the tables, then counted as the page
    does.
    """
    rng, started = np.random.default_rng(7), time.perf_counter()
    per_batch = n_records // (DAYS * len(DATASETS))
    record = json.dumps({f"column_{i}": round(float(rng.normal()), 4) for i in range(N_COLUMNS)})
    for dataset in DATASETS:
        for number in range(DAYS):
            day = (date(2025, 6, 1) + timedelta(days=number)).isoformat()
            rows = list(_rows(rng, dataset, day, per_batch, 1 + number // 90, record))
            held = QueueBatch(dataset, day, day, 1 + number // 90, SCORED_AT, per_batch, 100_000, 0, 0)
            with ledger.transaction(write=True) as connection:
                replace_batch(connection, held, rows)
    names = _some(ledger, rng, n_judged)
    for i in range(0, len(names), 200):
        by, opinion = f"reviewer{i // 200 % 4}", OPINIONS[i // 200 % len(OPINIONS)]
        judging.give(ledger, names[i : i + 200], opinion, by=by)
    print(f"filled in {time.perf_counter() - started:.0f} s")


def _rows(
    rng: np.random.Generator, dataset: str, day: str, n: int, version: int, record: str
) -> Iterator[dict[str, Any]]:
    severities, drivers = 2 + rng.exponential(1.5, n), rng.integers(0, N_COLUMNS, n)
    oddness = rng.choice(ODD, n, p=(0.55, 0.2, 0.15, 0.1)).tolist()
    drawn = zip(severities.tolist(), drivers.tolist(), oddness, strict=True)
    for i, (severity, driver, odd) in enumerate(drawn):
        key, column = f"{day}-{i:09d}", f"column_{driver}"
        reason = {"column": column, "observed": "9", "expected": "1", "low": 0.5, "high": 1.5, "share": 0.8}
        yield {
            "anomaly_id": anomaly_id(dataset, day, key), "dataset": dataset, "batch_id": day, "day": day,
            "kind": "flagged", "driver": column, "oddness": odd, "signature": f"{column}↑", "suppressed": 0,
            "band": max(band for band in BANDS if band <= severity), "model_version": version, "row_number": i,
            "severity": severity, "anomaly_score": severity * 90, "reconstruction": severity * 80,
            "kl_divergence": severity * 10, "kl_weight": 1.0, "kl_share": 0.1, "p_value": 10**-severity, "threshold": 20.0,
            "scored_at": SCORED_AT, "key_start": key, "record_key": key, "reasons": json.dumps([reason]),
            "record": record,
        }  # fmt: skip


def _some(ledger: Ledger, rng: np.random.Generator, n: int) -> list[str]:
    """Records to judge: of the newest days mostly, as people do."""
    rows = queue.page(ledger, Filters(), limit=n * 3).rows
    chosen = rng.choice(len(rows), min(n, len(rows)), replace=False)
    return [rows[i].anomaly_id for i in chosen.tolist()]


def _ask(ledger: Ledger, browser: TestClient) -> None:
    rare = Filters(dataset="orders", driver="column_7", state="data_error", reviewer="reviewer1")
    deep = Place("2025-08-01", 3.0, 300.0, "8")
    first = queue.page(ledger, Filters(state="open"), limit=1).rows[0]
    asked: dict[str, Callable[[], object]] = {
        "list, open": lambda: queue.page(ledger, Filters(state="open")),
        "list, nothing chosen": lambda: queue.page(ledger, Filters()),
        "list, deep": lambda: queue.page(ledger, Filters(state="open"), after=deep),
        "list, one column": lambda: queue.page(ledger, Filters(state="open", driver="column_3")),
        "list, one kind of oddness": lambda: queue.page(ledger, Filters(state="open", oddness="missing")),
        "list, five filters, few rows": lambda: queue.page(ledger, replace(rare, oddness="missing")),
        "list, four filters, few rows": lambda: queue.page(ledger, rare),
        "list, severity at least 16": lambda: queue.page(ledger, Filters(severity=16)),
        "list, model version 1": lambda: queue.page(ledger, Filters(model_version=1)),
        "list, by a reviewer": lambda: queue.page(ledger, Filters(reviewer="reviewer2")),
        "list, a month": lambda: queue.page(ledger, Filters(since="2025-10-01", until="2025-10-31")),
        "list, a signature": lambda: queue.page(ledger, Filters(signature="column_5↑", dataset="payments")),
        "search by key": lambda: queue.page(ledger, Filters(search="2025-12-24-00000001")),
        "search, a prefix of many": lambda: queue.page(ledger, Filters(search="2025")),
        "search of many, few rows": lambda: queue.page(ledger, replace(rare, search="2025")),
        "counts by eight filters": lambda: queue.counts(ledger, Filters(state="open")),
        "counts, four filters": lambda: queue.counts(ledger, rare),
        "groups of all days": lambda: groups(ledger, Filters(state="open")),
        "groups of 30 days": lambda: groups(ledger, Filters(state="open", since="2026-05-01")),
        "overview": lambda: review_statistics.review(ledger),
        "overview, one dataset": lambda: review_statistics.review(ledger, "payments"),
        "a verdict and its undo": lambda: judging.undo(
            ledger, judging.give(ledger, [first.anomaly_id], "normal", by="bench").act, by="bench"
        ),
        "rules, as they are": lambda: effects.effects(ledger, suppression.rules(ledger)),
        "page of the list": lambda: _get(browser, "/"),
        "page of a record": lambda: _get(browser, f"/record/{first.anomaly_id}"),
        "page of the groups": lambda: _get(browser, "/groups"),
        "page of the overview": lambda: _get(browser, "/overview"),
        "page of it, one dataset": lambda: _get(browser, "/overview?dataset=payments"),
    }  # fmt: skip
    print(f"{'':32} median    worst of 9, ms; CPU of this process, on SQLite all of it")
    for name, ask in asked.items():
        _time(name, ask)
    _after_writing(ledger, browser)
    _tallies(ledger)


def _after_writing(ledger: Ledger, browser: TestClient) -> None:
    """What follows a verdict, and what a rule that hides some fifty thousand records costs."""
    waiting = iter(queue.page(ledger, Filters(state="open"), limit=100).rows)

    def judge() -> None:
        body = {"anomaly_ids": [next(waiting).anomaly_id], "verdict": "normal"}
        browser.post("/api/verdicts", json=body).raise_for_status()

    _time("a verdict, by the API", judge)
    _time("page of the list after one", lambda: _get(browser, "/"), before=judge)
    last = (datetime.now(UTC).date() + timedelta(days=30)).isoformat()
    started = time.perf_counter()
    for signature, values in (("column_9↑", {}), ("", {"column_3": "9"}), ("column_4↑", {"column_3": "9"})):
        suppression.save(ledger, suppression.Rule("payments", signature, values, last, "a bench", "bench"))
    print(f"three rules saved in {time.perf_counter() - started:.1f} s")
    hidden = queue.total(ledger, Filters(suppressed=True))
    print(f"{hidden} records hidden")
    _time("rules, three of them", lambda: effects.effects(ledger, suppression.rules(ledger)))
    _time("page of the rules", lambda: _get(browser, "/rules"))
    _time("list, hidden", lambda: queue.page(ledger, Filters(suppressed=True)))


def _get(browser: TestClient, path: str) -> None:
    browser.get(path).raise_for_status()


def _time(name: str, ask: Callable[[], object], *, before: Callable[[], object] = lambda: None) -> None:
    times, cpu = [], []
    for _ in range(9):
        before()
        started, worked = time.perf_counter(), time.process_time()
        ask()
        times.append(1000 * (time.perf_counter() - started))
        cpu.append(1000 * (time.process_time() - worked))
    print(
        f"{name:32} {statistics.median(times):6.1f}  {max(times):7.1f}  {statistics.median(cpu):6.1f}",
        flush=True,
    )


def _tallies(ledger: Ledger) -> None:
    with ledger.transaction() as connection:
        n = connection.execute(sa.text("SELECT count(*) FROM tallies")).scalar_one()
    print(f"tallies: {n} rows")


if __name__ == "__main__":
    main()
