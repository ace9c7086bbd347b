"""A contract's rules as Great Expectations' expectations, native wherever there is one.

Belongs here: which expectation a rule becomes, and the five that Great Expectations lacks on DuckDB. Does
not: running them (checkpoint.py) or their wording (wording.py). Imports Great Expectations: import this
inside functions only.

Every rule about single values is a ColumnMapExpectation: Great Expectations counts all of them in one pass
over the batch, and writes the SQL itself. It skips missing values, as the rules do; NaN was already read as
missing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine
from great_expectations.expectations.core.expect_column_values_to_be_between import (
    ExpectColumnValuesToBeBetween,
)
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
from great_expectations.expectations.core.expect_column_values_to_not_be_null import (
    ExpectColumnValuesToNotBeNull,
)
from great_expectations.expectations.core.expect_table_columns_to_match_set import (
    ExpectTableColumnsToMatchSet,
)
from great_expectations.expectations.core.expect_table_row_count_to_be_between import (
    ExpectTableRowCountToBeBetween,
)
from great_expectations.expectations.expectation import BatchExpectation, ColumnMapExpectation
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.metrics.map_metric_provider.column_condition_partial import (
    column_condition_partial,
)
from great_expectations.expectations.metrics.map_metric_provider.column_map_metric_provider import (
    ColumnMapMetricProvider,
)
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider

from pipeline.config.contracts import AHEAD, BatchRule, RowRule

BOOKKEEPING = ("vaewatch_row", "vaewatch_set_aside", "vaewatch_reasons")
COUNTING = -1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def expectation(
    rule: RowRule | BatchRule, *, mostly: float, landed_at: datetime | None, meta: dict[str, Any]
) -> Any:
    """Return the expectation for a rule: rules about records warn, rules about the batch are critical.

    Args:
        mostly: share of values that must keep a row rule.
        landed_at: what a freshness rule counts from.
        meta: kept beside the expectation and its result.
    """
    if isinstance(rule, RowRule):
        kind, settings = _for_records(rule)
        return kind(**settings, mostly=rounded_share(mostly), severity=FailureSeverity.WARNING, meta=meta)
    kind, settings = _for_batch(rule, landed_at)
    return kind(**settings, severity=FailureSeverity.CRITICAL, meta=meta)


def count_records() -> Any:
    """Return the expectation that every batch gets: no suite is empty, and the report knows the count."""
    meta = {"rule": COUNTING, "code": "records"}
    return ExpectTableRowCountToBeBetween(min_value=0, severity=FailureSeverity.INFO, meta=meta)


def _for_records(rule: RowRule) -> tuple[Any, dict[str, Any]]:
    about = {"column": rule.column}
    match rule.code:
        case "missing_value":
            return ExpectColumnValuesToNotBeNullCounted, about
        case "out_of_range":
            bounds = {"min_value": rule.minimum, "max_value": rule.maximum}
            return ExpectColumnValuesToBeBetweenCounted, about | bounds
        case "not_in_set":
            return ExpectColumnValuesToBeInSetCounted, about | {"value_set": list(rule.values or ())}
        case "not_finite":
            return ExpectColumnValuesToBeFinite, about
        case "pattern":
            return ExpectColumnValuesToFullyMatchRegex, about | {"regex": rule.pattern}
        case "outside_period":
            return ExpectColumnValuesToLieInPeriod, about | {"outside": rule.violates}
        case "duplicate_key":
            return ExpectRecordKeysToBeUnique, {"columns": list(rule.columns)}


def _for_batch(rule: BatchRule, landed_at: datetime | None) -> tuple[Any, dict[str, Any]]:
    match rule.code:
        case "row_count":
            low, high = (None if bound is None else int(bound) for bound in (rule.minimum, rule.maximum))
            return ExpectTableRowCountToBeBetween, {"min_value": low, "max_value": high}
        case "columns":
            promised = sorted({*rule.columns, *BOOKKEEPING})
            return ExpectTableColumnsToMatchSet, {"column_set": promised, "exact_match": True}
        case "share_set_aside":
            mostly = rounded_share(1 - (rule.maximum or 0.0))
            settings = {"column": "vaewatch_set_aside", "value_set": [False], "mostly": mostly}
            return ExpectColumnValuesToBeInSetCounted, settings
        case "freshness":
            if landed_at is None or landed_at.tzinfo is None or rule.maximum is None:
                raise ValueError(
                    "a freshness rule needs landed_at with a time zone and a maximum age in days"
                )
            oldest = (landed_at - timedelta(days=rule.maximum) - EPOCH) // MICROSECOND
            latest = (datetime.now(UTC) + AHEAD - EPOCH) // MICROSECOND
            return ExpectNewestRecordToBeRecent, {"column": rule.column, "oldest": oldest, "latest": latest}


def rounded_share(share: float) -> float:
    """Round a share, so that 29 of 100 is no more than 0.29 although 1 - 0.29 may be a hair off 0.71."""
    return round(min(1.0, max(0.0, share)), 12)


class _Counted:
    """Counts the values that break a rule, and no more.

    Great Expectations would also look for examples, in a query for each rule, broken or not: with 1,000
    columns that is two thirds of the time.
    """

    def get_validation_dependencies(self, *arguments: Any, **options: Any) -> Any:
        dependencies = super().get_validation_dependencies(*arguments, **options)  # type: ignore[misc]
        values = f"{self.map_metric}.unexpected_values"  # type: ignore[attr-defined]
        dependencies.metric_configurations.pop(values, None)
        return dependencies


class ExpectColumnValuesToNotBeNullCounted(_Counted, ExpectColumnValuesToNotBeNull):
    """Native, counted."""


class _BetweenWhereFinite(ColumnMapMetricProvider):
    condition_metric_name = "column_values.between_where_finite"
    condition_value_keys = ("min_value", "max_value")

    @column_condition_partial(engine=SqlAlchemyExecutionEngine)
    def _sqlalchemy(
        cls,  # noqa: N805
        column: Any,
        min_value: float | None = None,
        max_value: float | None = None,
        **_: Any,
    ) -> Any:
        value = sa.cast(column, sa.Double)
        bounds = [value >= min_value] if min_value is not None else []
        bounds += [value <= max_value] if max_value is not None else []
        return sa.or_(sa.and_(*bounds), sa.func.isinf(value, type_=sa.Boolean))


class ExpectColumnValuesToBeBetweenCounted(_Counted, ExpectColumnValuesToBeBetween):
    """Native, counted; infinite values are left to another expectation."""

    map_metric = "column_values.between_where_finite"


class ExpectColumnValuesToBeInSetCounted(_Counted, ExpectColumnValuesToBeInSet):
    """Native, counted."""


class _Finite(ColumnMapMetricProvider):
    condition_metric_name = "column_values.finite"

    @column_condition_partial(engine=SqlAlchemyExecutionEngine)
    def _sqlalchemy(cls, column: Any, **_: Any) -> Any:  # noqa: N805 GX makes it a class method
        return sa.func.isfinite(column, type_=sa.Boolean)


class ExpectColumnValuesToBeFinite(_Counted, ColumnMapExpectation):
    """No value is infinite."""

    map_metric = "column_values.finite"


class _FullMatch(ColumnMapMetricProvider):
    condition_metric_name = "column_values.full_match"
    condition_value_keys = ("regex",)

    @column_condition_partial(engine=SqlAlchemyExecutionEngine)
    def _sqlalchemy(cls, column: Any, regex: str, **_: Any) -> Any:  # noqa: N805
        return sa.func.regexp_full_match(column, regex, type_=sa.Boolean)


class ExpectColumnValuesToFullyMatchRegex(_Counted, ColumnMapExpectation):
    """The whole text matches, in RE2's syntax. GX has no regular expressions on DuckDB."""

    regex: str
    map_metric = "column_values.full_match"
    success_keys = ("regex", "mostly")


class _InPeriod(ColumnMapMetricProvider):
    condition_metric_name = "column_values.in_period"
    condition_value_keys = ("outside",)
    filter_column_isnull = False  # the rule decides whether a record without a time is outside

    @column_condition_partial(engine=SqlAlchemyExecutionEngine)
    def _sqlalchemy(cls, column: Any, outside: str, **_: Any) -> Any:  # noqa: ARG002, N805
        return sa.not_(sa.literal_column(f"({outside})", sa.Boolean))


class ExpectColumnValuesToLieInPeriod(_Counted, ColumnMapExpectation):
    """Records belong to the batch's own period, which the rule's SQL defines."""

    outside: str
    map_metric = "column_values.in_period"
    success_keys = ("outside", "mostly")


class _RepeatedKeys(TableMetricProvider):
    """Counts records whose key an earlier record has. A key with a missing part repeats nothing."""

    metric_name = "table.repeated_keys"
    value_keys = ("columns",)

    @metric_value(engine=SqlAlchemyExecutionEngine)
    def _sqlalchemy(
        cls,  # noqa: N805
        execution_engine: Any,
        metric_domain_kwargs: Any,
        metric_value_kwargs: Any,
        **_: Any,
    ) -> int:
        records, _, _ = execution_engine.get_compute_domain(
            metric_domain_kwargs, domain_type=MetricDomainTypes.TABLE
        )
        parts: list[Any] = [sa.column(name) for name in metric_value_kwargs["columns"]]
        complete = sa.and_(*(part.is_not(None) for part in parts))
        repeats = (sa.func.count() - 1).label("repeats")
        keys = sa.select(repeats).select_from(records).where(complete).group_by(*parts).subquery()
        total = sa.select(sa.func.coalesce(sa.func.sum(keys.c.repeats), 0))
        return int(execution_engine.execute_query(total).scalar())


class ExpectRecordKeysToBeUnique(BatchExpectation):
    """No key occurs twice. GX's own counts every record of a repeated key; this one accepts the first."""

    columns: list[str]
    mostly: float = 1
    metric_dependencies = ("table.row_count", "table.repeated_keys")
    success_keys = ("columns", "mostly")

    def _validate(self, metrics: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        total, repeats = metrics["table.row_count"], metrics["table.repeated_keys"]
        percent = 100 * repeats / total if total else None
        result = {"element_count": total, "unexpected_count": repeats, "unexpected_percent": percent}
        return {"success": not total or (total - repeats) / total >= self.mostly, "result": result}


class _NewestRecord(TableMetricProvider):
    """The time of the newest record that was not set aside and is not dated after `latest`.

    It is returned in microseconds since 1970 and as text. Python's dates end in 9999 and DuckDB's do not, so
    DuckDB does the arithmetic. A date counts until its day ends.
    """

    metric_name = "table.newest_record"
    value_keys = ("column", "latest")

    @metric_value(engine=SqlAlchemyExecutionEngine)
    def _sqlalchemy(
        cls,  # noqa: N805
        execution_engine: Any,
        metric_domain_kwargs: Any,
        metric_value_kwargs: Any,
        **_: Any,
    ) -> tuple[int | None, str | None]:
        records, _, _ = execution_engine.get_compute_domain(
            metric_domain_kwargs, domain_type=MetricDomainTypes.TABLE
        )
        happened: Any = sa.column(metric_value_kwargs["column"])
        newest: Any = sa.func.max(happened).label("newest")
        has_come = sa.func.epoch_us(happened) <= metric_value_kwargs["latest"]
        kept = (
            sa
            .select(newest)
            .select_from(records)
            .where(sa.column("vaewatch_set_aside").is_(False), has_come)
            .subquery()
        )
        end = sa.case((sa.func.typeof(kept.c.newest) == "DATE", 24 * 3600 * 1_000_000 - 1), else_=0)
        moment = sa.func.epoch_us(kept.c.newest, type_=sa.BigInteger) + end
        row = execution_engine.execute_query(sa.select(moment, sa.cast(kept.c.newest, sa.String))).one()
        return (row[0], row[1])


class ExpectNewestRecordToBeRecent(BatchExpectation):
    """The newest record that was not set aside is no older than `oldest`.

    Records after `latest` do not count; both are in microseconds since 1970.
    """

    column: str
    oldest: int
    latest: int
    metric_dependencies = ("table.newest_record",)
    success_keys = ("column", "oldest", "latest")

    def _validate(self, metrics: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        newest, text = metrics["table.newest_record"]
        recent = newest is not None and newest >= self.oldest
        return {"success": recent, "result": {"observed_value": text}}
