"""A contract's rules run as a Great Expectations suite: real DuckDB files, real Great Expectations, no
network.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import expectations, sql
from pipeline.config.contracts import BatchRule, RowRule, batch_rules, row_rules
from pipeline.config.dataset import Dataset
from pipeline.errors import CheckCrashed

from .expectations_data import LANDED, ORDERS, SCHEMA, check, count, numbers, prepare, relation

pytestmark = pytest.mark.filterwarnings(  # Great Expectations 1.24 imports them
    "ignore:module 'sre_(constants|parse|compile)' is deprecated:DeprecationWarning"
)
RECORDS = st.lists(
    st.fixed_dictionaries({
        "region": st.sampled_from(["north", "south", "o'k", "%", None]),
        "order": st.sampled_from([1, 2, 3, -(2**63), None]),
        "amount": st.sampled_from([0.1, 99.5, 99.50001, 0.0999, None])
        | st.floats(width=32)
        | st.floats(0, 100, width=32),
        "weight": st.sampled_from([0.0, -0.0, -5e-324, None, float("inf"), float("-inf"), float("nan")])
        | st.floats(),
        "items": st.sampled_from([2**53, 2**53 + 1, 2**53 + 2, None]) | st.integers(-(2**63), 2**63 - 1),
        "price": st.sampled_from([
            Decimal("0.00"),
            Decimal("0.01"),
            Decimal("10.00"),
            Decimal("10.01"),
            None,
        ]),
        "status": st.sampled_from(["open", "Open", "it's", "50%", ":x", "{y}", "", " ", None])
        | st.text(max_size=3),
        "code": st.sampled_from(["A:x", "AB:x", "ABC:x", "A:x\n", "50%", "", "é", None])
        | st.text(max_size=3),
        "nothing": st.sampled_from([None, "", "any"]),
        "placed": st.sampled_from([None, LANDED, LANDED - timedelta(days=9)]),
    }),
    max_size=12,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(records=RECORDS)
def test_great_expectations_counts_what_the_rules_count(records: list[dict[str, Any]]) -> None:
    """The records set aside come from our SQL, the report from GX's: a reader must never see two truths."""
    rules = row_rules(ORDERS)
    with tempfile.TemporaryDirectory() as folder:
        database = prepare(Path(folder), ORDERS, pa.Table.from_pylist(records, SCHEMA), rules)
        result = check(database, [*rules, *batch_rules(ORDERS)])
        assert [o.n_unexpected for o in result.outcomes[: len(rules)]] == count(database, rules)
        assert result.n_records == len(records)
        by_code = {o.code: o for o in result.outcomes}
        assert by_code["columns"].success
        assert by_code["row_count"].success == bool(records)


@pytest.mark.parametrize("statistics", [True, False])
def test_nan_is_missing_whatever_a_files_statistics_say(tmp_path: Path, statistics: bool) -> None:
    """Parquet's smallest and largest value leave NaN out; DuckDB 2.0 then takes isnan(x) for false without a
    look.
    """
    pq.write_table(pa.table({"x": [float("nan"), 7.0]}), tmp_path / "x.parquet", write_statistics=statistics)
    with duckdb.connect(str(tmp_path / "batch.duckdb")) as connection:
        connection.execute(
            f"""CREATE VIEW batch AS SELECT CASE WHEN isnan(x) THEN NULL ELSE x END AS x, file_row_number AS vaewatch_row,
                false AS vaewatch_set_aside FROM read_parquet('{tmp_path}/x.parquet', file_row_number = true)"""
        )
    rules = [
        RowRule("missing_value", "x", "x IS NULL"),
        RowRule("not_finite", "x", "coalesce(isinf(x), false)"),
        RowRule("out_of_range", "x", "coalesce(x > 10, false)", maximum=10.0),
    ]
    assert [o.n_unexpected for o in check(tmp_path / "batch.duckdb", rules).outcomes] == [1, 0, 0]


def test_the_first_record_of_a_key_is_kept(tmp_path: Path) -> None:
    """GX's own uniqueness would count all three; setting the good first one aside would lose it."""
    database = relation(
        tmp_path,
        """SELECT *, false AS vaewatch_set_aside FROM (VALUES
           ('a', 1, 2), ('a', 1, 0), ('a', 1, 1), ('b', 1, 3), ('a', 2, 4), (NULL, 1, 5), (NULL, 1, 6)
           ) AS t(region, "order", vaewatch_row)""",
    )
    (rule,) = [r for r in row_rules(ORDERS) if r.code == "duplicate_key"]
    (outcome,) = check(database, [rule]).outcomes
    assert outcome.n_unexpected == 2
    assert outcome.examples == ("a + 1",)


def test_a_single_key_column_may_repeat_nothing_either(tmp_path: Path) -> None:
    """Most keys are one column."""
    database = numbers(tmp_path, "(1), (1), (1), (2), (NULL), (NULL)")
    violates = "x IS NOT NULL AND row_number() OVER (PARTITION BY x ORDER BY vaewatch_row) > 1"
    (outcome,) = check(database, [RowRule("duplicate_key", "x", violates, columns=("x",))]).outcomes
    assert outcome.n_unexpected == 2


def test_infinity_is_large_and_missing_is_nothing(tmp_path: Path) -> None:
    """Neither a missing value nor an infinite one must also be reported as out of range, nor slip through
    both rules.
    """
    database = numbers(tmp_path, "('inf'::DOUBLE), ('-inf'), (NULL), (5), (11), (10)")
    rules = [
        *(rule for x in ({"min": 0, "max": 10}, {"min": 0}) for rule in _rules_of_x(x)),
        RowRule("missing_value", "x", "x IS NULL"),
    ]
    outcomes = check(database, rules).outcomes
    assert [o.n_unexpected for o in outcomes] == [2, 1, 2, 0, 1]
    assert outcomes[1].examples == ("11.0",)
    assert outcomes[1].observed == "1 of 6 records (16.67 %)"


def _rules_of_x(bounds: dict[str, int]) -> list[RowRule]:
    columns = {"x": {"type": "float", "role": "numeric", **bounds}}
    dataset = {"dataset": "numbers", "incoming": {"path": "x"}, "columns": columns}
    return row_rules(Dataset.model_validate(dataset))


def test_records_outside_their_period_are_counted_by_the_rules_own_words(tmp_path: Path) -> None:
    """Whether a record without a time is outside is for the rule to say, whatever characters it says it
    with.
    """
    database = numbers(tmp_path, "(1), (2), (3), (NULL)")
    rule = RowRule("outside_period", "x", "(x > 2 OR x IS NULL) AND ':a {b} %c' <> ''")
    (outcome,) = check(database, [rule]).outcomes
    assert outcome.n_unexpected == 2


ODD_NAMES = (
    "plain",
    "a`b",
    "`a`",
    "a",
    "[a]",
    '"a"',
    'a"b',
    "select",
    "naïve col",
    "a.b",
    "{x}",
    "{}",
    "100%",
    ":name",
    "$1",
    "?",
    "'; DROP TABLE batch; --",
    "<script>alert(1)</script>",
    "列",
    "🙂",
    "UPPER",
    "new\nline",
    "back\\slash",
    "x" * 300,
    "_row2",
    "column",
)


def test_a_column_may_have_any_name(tmp_path: Path) -> None:
    """Names come from other people's files: each rule must reach its own column and no other."""
    columns = ", ".join(
        f"CASE WHEN i <= {i} THEN 'odd' END AS {sql.name(name)}" for i, name in enumerate(ODD_NAMES)
    )
    database = relation(
        tmp_path, f"SELECT {columns}, i AS vaewatch_row, false AS vaewatch_set_aside FROM range(40) AS r(i)"
    )
    rules: list[Any] = []
    for name in ODD_NAMES:
        rules += [
            RowRule("missing_value", name, f"{sql.name(name)} IS NULL"),
            RowRule("pattern", name, f"{sql.name(name)} IS NOT NULL", pattern="never{2}"),
        ]
    rules.append(RowRule("duplicate_key", None, "false", columns=ODD_NAMES))
    result = check(database, rules)
    found = [o.n_unexpected for o in result.outcomes[: 2 * len(ODD_NAMES)]]
    assert found == [n for i in range(len(ODD_NAMES)) for n in (39 - i, i + 1)]
    assert result.outcomes[-1].n_unexpected == 0
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_contract_may_promise_columns_of_any_name(tmp_path: Path) -> None:
    """All but two at once: GX takes `a` and `a` within quotes for one column where it compares sets of
    names.
    """
    names = tuple(name for name in ODD_NAMES if name not in {'"a"', "[a]", "`a`"})
    columns = ", ".join(f"1 AS {sql.name(name)}" for name in names)
    database = relation(
        tmp_path,
        f"SELECT {columns}, 0 AS vaewatch_row, false AS vaewatch_set_aside, NULL AS vaewatch_reasons",
    )
    (outcome,) = check(database, [BatchRule("columns", columns=names)]).outcomes
    assert outcome.success
    (outcome,) = check(database, [BatchRule("columns", columns=names[1:])]).outcomes
    assert outcome.observed == "unexpected: 'plain'"


def wide(folder: Path, n_columns: int) -> tuple[Path, list[RowRule]]:
    columns = ", ".join(f"i % {c + 2} AS c{c}" for c in range(n_columns))
    database = relation(
        folder, f"SELECT {columns}, i AS vaewatch_row, false AS vaewatch_set_aside FROM range(500) AS r(i)"
    )
    return database, [RowRule("out_of_range", f"c{c}", "false", maximum=100) for c in range(n_columns)]


def test_three_hundred_columns_are_no_trouble(tmp_path: Path) -> None:
    """Sensor tables are wide; every rule is counted in one pass over the batch."""
    database, rules = wide(tmp_path, 300)
    result = check(database, rules)
    assert [o.n_unexpected for o in result.outcomes] == [
        sum(i % (c + 2) > 100 for i in range(500)) for c in range(300)
    ]


@pytest.mark.slow
def test_a_thousand_columns_are_possible(tmp_path: Path) -> None:
    """The widest tables that we were asked about; GX takes some 15 to 25 ms a rule."""
    database, rules = wide(tmp_path, 1000)
    assert len(check(database, rules).outcomes) == 1000


def test_a_check_that_crashes_is_not_a_batch_that_fails(tmp_path: Path) -> None:
    """GX reports an engine's error as a broken expectation: a good batch would be refused, and never
    retried.
    """
    database = relation(
        tmp_path, "SELECT 'AB' AS code, 1 AS n, 0 AS vaewatch_row, false AS vaewatch_set_aside"
    )
    rules = [
        RowRule("missing_value", "n", "n IS NULL"),
        RowRule("pattern", "code", "false", pattern="(?=A)AB"),  # Python knows look-ahead, DuckDB does not
    ]
    with pytest.raises(CheckCrashed) as crash:
        check(database, rules)
    assert re.search(
        r"orders/2026-03-01: 1 of 3 checks crashed; expect_column_values_to_fully_match_regex on column 'code': "
        r".*invalid perl operator",
        str(crash.value),
    )
    assert crash.value.retry_can_help
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    "rule",
    [
        RowRule("missing_value", "gone", "false"),
        RowRule("duplicate_key", None, "false", columns=("gone", "x")),
        BatchRule("freshness", column="gone", maximum=1),
        BatchRule("freshness", column="x", maximum=1),
        RowRule("not_finite", "vaewatch_set_aside", "false"),
    ],
    ids=lambda rule: f"{rule.code}-{rule.column}",
)
def test_a_rule_that_does_not_fit_the_data_crashes(tmp_path: Path, rule: Any) -> None:
    """A misfit is a fault of ours, not of the batch."""
    with pytest.raises(CheckCrashed, match="1 of 2 checks crashed; expect_"):
        check(numbers(tmp_path, "(1)"), [rule])


def test_a_database_that_cannot_be_opened_is_a_crash(tmp_path: Path) -> None:
    """Nothing was learned about the data."""
    (tmp_path / "batch.duckdb").write_bytes(b"this is not a database" * 1000)
    with pytest.raises(CheckCrashed, match="this says nothing about the data"):
        check(tmp_path / "batch.duckdb", [])


def test_running_out_of_memory_is_a_crash(tmp_path: Path) -> None:
    """Memory is bounded: what does not fit is refused by the engine, and says so."""
    database = relation(
        tmp_path,
        "SELECT repeat('x', 5000000) || i AS k, i AS vaewatch_row, false AS vaewatch_set_aside FROM range(40) AS r(i)",
    )
    with pytest.raises(CheckCrashed, match="Out of Memory"):
        check(database, [RowRule("duplicate_key", "k", "false", columns=("k",))], memory_gb=0.02)


def test_the_file_is_free_again_afterwards(tmp_path: Path) -> None:
    """The next step opens it for writing, after a good run and after a crash."""
    database = numbers(tmp_path, "(1)")
    check(database, [RowRule("missing_value", "x", "x IS NULL")])
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE TABLE after_success AS SELECT 1")
    with pytest.raises(CheckCrashed):
        check(database, [RowRule("missing_value", "gone", "false")])
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE TABLE after_crash AS SELECT 1")


def test_an_empty_batch_breaks_its_record_count_and_crashes_nothing(tmp_path: Path) -> None:
    """Sums over nothing are NULL in SQL; an empty delivery is an everyday event."""
    rules = row_rules(ORDERS)
    database = prepare(tmp_path, ORDERS, SCHEMA.empty_table(), rules)
    result = check(database, [*rules, *batch_rules(ORDERS)])
    assert [o.code for o in result.outcomes if not o.success] == ["row_count", "freshness"]
    assert {o.n_unexpected for o in result.outcomes[: len(rules)]} == {0}
    assert (result.success, result.n_records) == (False, 0)


def test_a_batch_without_rules_is_still_counted(tmp_path: Path) -> None:
    """A contract may promise nothing; the report is written all the same."""
    result = check(numbers(tmp_path, "(1), (2)"), [])
    assert result == expectations.CheckpointResult(success=True, outcomes=(), n_records=2)
    assert (tmp_path / "report" / "index.html").exists()


def test_rules_about_records_warn_and_rules_about_the_batch_decide(tmp_path: Path) -> None:
    """One bad value among two present ones is half of that column, and no reason to refuse 100 records."""
    database = relation(
        tmp_path,
        "SELECT CASE WHEN i < 2 THEN i END AS x, i AS vaewatch_row, i = 1 AS vaewatch_set_aside FROM range(100) AS r(i)",
    )
    rules = [
        RowRule("out_of_range", "x", "coalesce(x > 0, false)", maximum=0.0),
        BatchRule("share_set_aside", maximum=0.01),
        BatchRule("row_count", minimum=101),
    ]
    broken, aside, too_few = check(database, rules, mostly=0.99).outcomes
    assert (broken.severity, broken.success, broken.n_unexpected) == ("warning", False, 1)
    assert (aside.severity, aside.success, aside.observed) == ("critical", True, "1 of 100 records (1 %)")
    assert (too_few.success, too_few.promise, too_few.observed) == (
        False,
        "at least 101 records",
        "100 records",
    )
    assert check(database, rules[:2], mostly=0.99).success
    assert not check(database, rules, mostly=0.99).success


def test_a_share_exactly_at_its_limit_is_kept() -> None:
    """1 - 0.29 is not 0.71 to a computer: 29 of 100 must not be refused for that, nor 30 pass."""
    from pipeline.expectations.suite import rounded_share

    for thousandths in range(1000):
        mostly = rounded_share(1 - thousandths / 1000)
        for n in (1000, 3000, 1_000_000):
            aside = n * thousandths // 1000
            assert (n - aside) / n >= mostly
            assert (n - aside - 1) / n < mostly


@pytest.mark.parametrize(
    ("time", "fresh"),
    [
        ("TIMESTAMPTZ '2026-02-28 04:00:00+00'", True),
        ("TIMESTAMPTZ '2026-02-28 03:59:59.999999+00'", False),
        ("TIMESTAMP '2026-02-28 04:00:00'", True),
        ("TIMESTAMP '2026-02-28 03:59:59.999999'", False),
        ("DATE '2026-02-28'", True),  # that day was not over
        ("DATE '2026-02-27'", False),
        ("TIMESTAMP '20260-01-01 00:00:00'", False),
        ("TIMESTAMP '2099-01-01 00:00:00'", False),
        ("TIMESTAMPTZ '2099-01-01 00:00:00+00'", False),
        ("DATE '2099-01-01'", False),
        ("now() + INTERVAL 23 HOUR", True),
        ("CAST(NULL AS TIMESTAMP)", False),
    ],
)
def test_a_batch_is_as_fresh_as_its_newest_accepted_record(tmp_path: Path, time: str, fresh: bool) -> None:
    """Records set aside say nothing, nor do accepted ones dated more than a day ahead: a year of 9999
    is a typical mistake.
    """
    database = relation(
        tmp_path,
        f"""SELECT CASE i WHEN 1 THEN {time} WHEN 2 THEN '9999-12-31' ELSE '2001-01-01' END AS t,
            i AS vaewatch_row, i = 2 AS vaewatch_set_aside FROM range(3) AS r(i) WHERE {time} IS NOT NULL OR i > 0""",
    )
    landed = LANDED.astimezone(tz=None)
    (outcome,) = check(database, [BatchRule("freshness", column="t", maximum=2)], landed_at=landed).outcomes
    assert outcome.success == fresh
    assert outcome.column == "t"


def test_freshness_needs_to_know_when_the_batch_landed(tmp_path: Path) -> None:
    """Without it a rule would be skipped in silence."""
    with pytest.raises(ValueError, match="landed_at"):
        check(numbers(tmp_path, "(1)"), [BatchRule("freshness", column="x", maximum=1)], landed_at=None)


def test_columns_that_differ_are_named(tmp_path: Path) -> None:
    """A reader wants to know which."""
    (outcome,) = check(numbers(tmp_path, "(1)"), [BatchRule("columns", columns=("y",))]).outcomes
    assert not outcome.success
    assert "'x'" in outcome.observed
    assert "'y'" in outcome.observed


def test_importing_the_package_imports_no_engine() -> None:
    """A scheduler imports it every half minute; Great Expectations alone takes four seconds."""
    heavy = "{'great_expectations', 'sqlalchemy', 'duckdb', 'pandas', 'pyarrow'}"
    code = f"import sys, pipeline.expectations; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


SEALED = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname"):
        print("NETWORK", event, arguments, flush=True)
sys.addaudithook(refuse)
from pathlib import Path
from pipeline import expectations
from pipeline.config.contracts import RowRule
rules = [RowRule("out_of_range", "x", "coalesce(x > 1, false)", maximum=1.0)]
expectations.check(Path(sys.argv[1]), dataset="d", batch_id="b", rules=rules, mostly=1.0, report=Path(sys.argv[2]))
print("great_expectations" in sys.modules)
"""


def test_a_check_tells_nobody_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """No telemetry, no version lookup, no progress bar, no file in the home or working folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "data").mkdir()
    database = numbers(tmp_path / "data", "(1), (2)")
    done = subprocess.run(
        [sys.executable, "-c", SEALED, str(database), str(tmp_path / "data" / "report")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path / "home",
        env={"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())},
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert not list((tmp_path / "home").iterdir())
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["batch.duckdb", "report"]
