"""`vaewatch review`: the page, and its verbs in a shell.

Belongs here: arguments, and what a person or a machine reads. Does not: any work (review/).
"""

from __future__ import annotations

import getpass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.cli import labels, rules
from pipeline.cli.arguments import AnyDataset, AsJson, By, DatasetName, WholeSentences, print_json, say

AnomalyId = Annotated[str, typer.Argument(help="as `review list` prints it; the first letters are enough")]
DAY = "%Y-%m-%d"
SHOWN = 3  # rule changes shown per dataset, beside the suggested budget

verbs = typer.Typer(
    help="Serve the page of records that wait for a person; with a command, the same from a shell.",
    invoke_without_command=True,
)
verbs.add_typer(rules.verbs, name="rules", cls=WholeSentences)


@verbs.callback()
def review_page(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port")] = 8200,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    by: Annotated[str, typer.Option("--by", help="who reviews; default: you")] = "",
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="a name by which other machines reach this one; repeatable"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="DATASET", help="serve this dataset; repeatable; default: all"),
    ] = None,
) -> None:
    """Without a verb: serve the review page on this machine, and print the address to open."""
    if context.invoked_subcommand is None:
        from pipeline.web.alone import serve

        serve(host, port, by or getpass.getuser(), names=name or [], only=only or [], say=typer.echo)


@verbs.command("list")
def review_list(
    dataset: AnyDataset = None,
    state: Annotated[
        Literal["any", "open", "anomaly", "normal", "expected_change", "data_error", "unsure", "conflict"],
        typer.Option(help="what the verdicts come to; `open`: there is none that holds"),
    ] = "open",
    driver: Annotated[
        str | None,
        typer.Option(help="most at odds: the column with the largest share of what makes a record odd"),
    ] = None,
    oddness: Annotated[
        Literal[
            "any", "above", "below", "missing", "other_category", "unknown_category", "together", "no_column"
        ],
        typer.Option(help="how it is odd, in the column most at odds; `together`: only with others"),
    ] = "any",
    kind: Annotated[
        Literal["any", "flagged", "sampled", "cleared"],
        typer.Option(help="`sampled`: the random sample; `cleared`: no longer flagged"),
    ] = "flagged",
    batch: Annotated[str | None, typer.Option(help="one batch; default: all")] = None,
    since: Annotated[datetime | None, typer.Option(formats=[DAY], help="first day, like 2026-01-31")] = None,
    until: Annotated[datetime | None, typer.Option(formats=[DAY], help="last day")] = None,
    search: Annotated[str | None, typer.Option(help="beginning of a record's key or id")] = None,
    severity: Annotated[
        Literal["0", "2", "3", "4", "6", "10", "16"] | None, typer.Option(help="at least this severe")
    ] = None,
    version: Annotated[int | None, typer.Option("--model-version", help="scored by this version")] = None,
    reviewer: Annotated[str | None, typer.Option(help="last judged by this person")] = None,
    hidden: Annotated[
        bool, typer.Option("--hidden", help="only those that a suppression rule hides")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many")] = 20,
    as_json: AsJson = False,
) -> None:
    """List records that wait for a person: the newest day first, on a day the most severe first."""
    from pipeline.display.review import print_queue
    from pipeline.installation import Installation
    from pipeline.review import choices, queue
    from pipeline.review.filters import Filters

    here = Installation()
    chosen = Filters(
        dataset=dataset and here.dataset(dataset).name,
        state=None if state == "any" else state,
        kind=None if kind == "any" else kind,
        driver=driver,
        oddness=None if oddness == "any" else oddness,
        batch=batch,
        since=since.date().isoformat() if since else None,
        until=until.date().isoformat() if until else None,
        search=search,
        severity=int(severity) if severity else None,
        model_version=version,
        reviewer=reviewer,
        suppressed=hidden,
    )
    choices.check(here, chosen)
    found = queue.page(here.ledger, chosen, limit=limit)
    if as_json:
        print_json(found.rows)
    else:
        counted = None if search else queue.counts(here.ledger, chosen)["kind"]
        if counted and kind in {"sampled", "cleared"}:
            counted = {kind: counted.get(kind, 0)}
        others = {} if found.rows else choices.instead(here.ledger, chosen)
        print_queue(found.rows, state, counted, has_more=found.more_after is not None, others=others)


@verbs.command("show")
def review_show(
    anomaly_id: AnomalyId,
    clearing: Annotated[
        bool,
        typer.Option("--clearing", help="the smallest change after which it would not have been flagged"),
    ] = False,
    nearest: Annotated[
        bool, typer.Option("--nearest", help="the unflagged records of its batch that are most like it")
    ] = False,
    neighbours: Annotated[
        bool, typer.Option("--neighbours", help="the records of the same entity before and after it")
    ] = False,
    versions: Annotated[
        bool, typer.Option("--versions", help="ask the registered model versions how they score it now")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one record whole: original values, scores, reasons and verdicts; and what it stands beside, where
    asked for.
    """
    from dataclasses import asdict

    from pipeline.display.beside import print_beside
    from pipeline.display.review import print_one
    from pipeline.installation import Installation
    from pipeline.review import compare, record
    from pipeline.review.versions import derived_values, scored_by

    here = Installation()
    found = record.one(here.ledger, record.find(here.ledger, anomaly_id))
    of = here, here.dataset(found.dataset), found
    derived, beside = derived_values(*of), dict[str, Any]()
    if clearing:
        beside["clearing"] = compare.clearing(*of)
    if nearest:
        beside["nearest"] = compare.nearest(*of)
    if neighbours:
        beside["neighbours"] = record.neighbours(*of)
    if versions:
        beside["scored_by"] = scored_by(*of)
    if as_json:
        return print_json(asdict(found) | {"derived": derived} | beside)
    derivations, place = record.derivations(of[1], found), record.place(here.ledger, found)
    print_one(found, derived, derivations, of[1].quantities, place)
    return print_beside(found, beside, of[1].quantities)


verbs.command("groups")(labels.groups)
verbs.command("label")(labels.label)
verbs.command("undo")(labels.undo)


@verbs.command("export")
def review_export(
    dataset: DatasetName,
    out: Annotated[Path, typer.Argument(help="file to write: .parquet, .csv or .jsonl")],
    batch: Annotated[str | None, typer.Option(help="one batch; default: all")] = None,
    history: Annotated[
        bool, typer.Option("--history", help="a row for everything that was said: who, when, note, undone")
    ] = False,
) -> None:
    """Write flagged records, and others that were judged, with values and what their verdicts come to, or the
    history of verdicts, to a file.
    """
    from pipeline.installation import Installation
    from pipeline.results import export
    from pipeline.review import choices
    from pipeline.review.filters import Filters

    here = Installation()
    choices.check(here, Filters(dataset=here.dataset(dataset).name, batch=batch))
    if history:
        n = export.history(here, dataset, out, batch_id=batch)
        return typer.echo(f"wrote {n:,} entr{'y' if n == 1 else 'ies'} to {out}")
    n, n_more = export.records(here, dataset, out, batch_id=batch)
    others = f" and {n_more:,} other{'s' * (n_more != 1)} with a verdict" if n_more else ""
    return typer.echo(f"wrote {n:,} flagged record{'s' * (n != 1)}{others} to {out}")


@verbs.command("stats")
def review_stats(
    dataset: AnyDataset = None,
    log: Annotated[bool, typer.Option("--log", help="log them on the model versions in MLflow")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what verdicts add up to: precision by model version, recall and what is missed, backlog,
    agreement, with intervals.
    """
    from dataclasses import asdict

    from pipeline.display import print_lines
    from pipeline.installation import Installation
    from pipeline.results import flagging
    from pipeline.review import statistics
    from pipeline.review.budget import Suggestion, suggested
    from pipeline.review.loop import log_review

    here = Installation()
    for name in ([dataset] if dataset else sorted(here.datasets())) if log else []:
        for version in log_review(here, here.dataset(name)):
            typer.echo(f"logged on version {version} of {name}", err=True)
    names = [dataset] if dataset else sorted(here.datasets())
    budgets = {name: one for name in names if (one := suggested(here, here.dataset(name)))}
    rules = {name: flagging.changes(here.ledger, name) for name in names}
    found = statistics.review(here.ledger, dataset and here.dataset(dataset).name)
    if as_json:
        told = {name: one for name, one in budgets.items() if isinstance(one, Suggestion)}
        return print_json(asdict(found) | {"budgets": told, "rules": rules})
    lines = [(f"suggested budget of {name}", one.text) for name, one in budgets.items()]
    for name in names:
        lines += [(f"rule of {name}", text) for text in flagging.in_words(rules[name][:SHOWN])]
    return print_lines([*statistics.as_lines(found), *lines])


@verbs.command("budget")
def review_budget(
    dataset: DatasetName,
    reason: Annotated[
        str, typer.Option(help="write down now, with this reason, the rule that the dataset's file has")
    ] = "",
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Show by which rule each model version flagged, since when, and who said so and why. With a reason, note
    it for the rule that the file has now. What was scored before keeps its threshold.
    """
    from pipeline.display import print_lines
    from pipeline.installation import Installation
    from pipeline.results import flagging

    here = Installation()
    chosen = here.dataset(dataset)
    if reason and flagging.give_reason(here, chosen, by=by or getpass.getuser(), reason=reason) is None:
        typer.echo("nothing changed: this rule and reason are already written down", err=True)
    found = flagging.rules(here.ledger, chosen.name)
    if as_json:
        return print_json(found)
    now = [("in the file", f"{flagging.rule_of(chosen)}, for what is scored from now on")]
    return print_lines([*now, *(("written down", text) for text in flagging.in_words(found))])


@verbs.command("fill")
def review_fill(
    dataset: AnyDataset = None,
    force: Annotated[bool, typer.Option(help="fill in again what the queue already holds")] = False,
) -> None:
    """Add scored batches that are missing from the queue, or are there with an older model's scores."""
    from pipeline.installation import Installation
    from pipeline.review.filling import catch_up

    here = Installation()
    for name in [dataset] if dataset else sorted(here.datasets()):
        done = catch_up(here, here.dataset(name), force=force, say=lambda line: say(f"  {line}", err=True))
        typer.echo(f"{name}: {len(done)} batches filled in")
