"""Running a suite: one Great Expectations Checkpoint over one prepared batch.

Belongs here: the context, the run, and telling a batch that breaks a rule from a check that crashed. Does
not: which expectation a rule becomes (suite.py), or how a result reads (wording.py, page.py).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline import sql
from pipeline.config.contracts import BatchRule, RowRule
from pipeline.errors import CheckCrashed
from pipeline.expectations import wording
from pipeline.expectations.outcome import CheckpointResult, Outcome

EXAMPLES, LOOKED_AT = 5, 100


def load() -> None:
    """Import all that `run` needs of Great Expectations."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read on import
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # else hundreds of lines on import
    import great_expectations.checkpoint  # noqa: F401

    from pipeline.expectations import suite  # noqa: F401


def run(
    database: Path,
    *,
    dataset: str,
    batch_id: str,
    rules: Sequence[RowRule | BatchRule],
    mostly: float,
    landed_at: datetime | None,
    memory_gb: float,
    threads: int | None,
) -> tuple[CheckpointResult, dict[str, Any]]:
    """Check every rule; return the outcomes, and Great Expectations' own result as JSON.

    Raises:
        CheckCrashed: names the expectation, its column and the cause.
    """
    load()
    from pipeline.expectations import dialect, suite

    expectations = [
        suite.expectation(rule, mostly=mostly, landed_at=landed_at, meta={"rule": i, "code": rule.code})
        for i, rule in enumerate(rules)
    ]
    source = dialect.data_source(database, memory_gb=memory_gb, threads=threads)
    with _opened(source, dataset, batch_id) as (context, batch, engine):
        validation = _validated(context, batch, [*expectations, suite.count_records()])
        found = {result.expectation_config.meta["rule"]: result for result in validation.results}
        _refuse_crashes(f"{dataset}/{batch_id}", found, n_checks=len(rules) + 1)
        n_records = _refuse_gaps(f"{dataset}/{batch_id}", found, counting=suite.COUNTING)
        examples = [_examples(engine, rule, found[i].result) for i, rule in enumerate(rules)]
    outcomes = tuple(_outcome(rule, found[i], landed_at, examples[i]) for i, rule in enumerate(rules))
    success = all(outcome.success for outcome in outcomes if outcome.severity == "critical")
    return CheckpointResult(success, outcomes, n_records), validation.to_json_dict()


@contextmanager
def _opened(source: Mapping[str, Any], dataset: str, batch_id: str) -> Iterator[tuple[Any, Any, Any]]:
    """Yield a context, the batch in it and its engine; whatever fails meanwhile is a crashed check."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        # get_context's default would make a folder in /tmp
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    engines = []
    try:
        context = gx.get_context(mode="ephemeral", project_config=config)
        data = context.data_sources.add_sql(dataset, **source)
        engines = [
            data.get_engine(),
            data.get_execution_engine().engine,
        ]  # two: one tests the connection
        table = data.add_table_asset(batch_id, table_name="batch")
        yield context, table.add_batch_definition_whole_table(batch_id), engines[0]
    except CheckCrashed:
        raise
    except Exception as fault:
        raise CheckCrashed(
            f"{dataset}/{batch_id}: the checks could not be run: {_cause(str(fault))}; this says nothing about the data"
        ) from fault
    finally:
        for engine in engines:
            engine.dispose()


def _validated(context: Any, batch: Any, expectations: Sequence[Any]) -> Any:
    import great_expectations as gx

    suite = context.suites.add(gx.ExpectationSuite(batch.name, expectations=list(expectations)))
    definition = gx.ValidationDefinition(name=batch.name, data=batch, suite=suite)
    checkpoint = gx.Checkpoint(
        name=batch.name,
        validation_definitions=[context.validation_definitions.add(definition)],
        result_format="BASIC",
    )
    (validation,) = context.checkpoints.add(checkpoint).run().run_results.values()
    return validation


def _refuse_crashes(batch: str, found: Mapping[int, Any], *, n_checks: int) -> None:
    """Raise CheckCrashed for an engine's error, which Great Expectations reports as a broken expectation."""
    crashed = [(result, cause) for _, result in sorted(found.items()) if (cause := _crash(result))]
    if len(found) != n_checks:
        raise CheckCrashed(f"{batch}: Great Expectations answered {len(found)} of {n_checks} checks")
    if crashed:
        config, cause = crashed[0][0].expectation_config, crashed[0][1]
        about = config.kwargs.get("column") or " + ".join(config.kwargs.get("columns", ()))
        raise CheckCrashed(
            f"{batch}: {len(crashed)} of {n_checks} checks crashed; {config.type} on column {about!r}: {cause}; "
            "this says nothing about the data"
        )


def _crash(result: Any) -> str | None:
    info = result.exception_info  # one, or one for each metric that the check needed
    every = [info] if "raised_exception" in info else info.values()
    return next((_cause(one["exception_message"]) for one in every if one["raised_exception"]), None)


def _refuse_gaps(batch: str, found: Mapping[int, Any], *, counting: int) -> int:
    """Return how many records there were.

    Raises:
        CheckCrashed: a check did not see all of them; for want of a count it would pass.
    """
    n_records = int(found[counting].result["observed_value"])
    for result in found.values():
        counted = result.result.get("element_count", n_records)
        if counted != n_records or (n_records and result.result.get("unexpected_count", 0) is None):
            type_ = result.expectation_config.type
            raise CheckCrashed(f"{batch}: {type_} counted {counted} of {n_records} records; try again")
    return n_records


def _cause(message: str) -> str:
    return " ".join(message.partition("\n[SQL:")[0].split())[:500]


def _examples(engine: Any, rule: RowRule | BatchRule, found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a few different values among the first that break a rule, as text for a reader."""
    if not isinstance(rule, RowRule) or not found["unexpected_count"] or rule.code == "missing_value":
        return ()
    texts = [f"CAST({sql.name(name)} AS VARCHAR)" for name in rule.columns or (rule.column or "",)]
    query = f"""SELECT left(concat_ws(' + ', {", ".join(texts)}), {wording.LONGEST + 1})
        FROM (SELECT *, ({rule.violates}) AS vaewatch_violates FROM batch) WHERE vaewatch_violates ORDER BY vaewatch_row LIMIT {LOOKED_AT}"""
    with engine.connect() as connection:
        different = dict.fromkeys(text for (text,) in connection.exec_driver_sql(query))
    return tuple(map(wording.shortened, list(different)[:EXAMPLES]))


def _outcome(
    rule: RowRule | BatchRule, result: Any, landed_at: datetime | None, examples: tuple[str, ...]
) -> Outcome:
    config = result.expectation_config
    return Outcome(
        code=rule.code,
        column=rule.column,
        severity=config.severity.value,
        success=bool(result.success),
        n_unexpected=result.result["unexpected_count"] or 0 if "unexpected_count" in result.result else None,
        promise=wording.promise(rule, landed_at),
        observed=wording.observed(rule, result.result),
        expectation=config.type,
        examples=examples,
    )
