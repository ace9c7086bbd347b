"""The command line: one verb per step, the same functions that the DAGs call.

Belongs here: arguments, exit codes and what a person or a machine reads. Does not: any work (steps/) or how a table
is laid out (display.py). Nothing heavy is imported before a verb needs it: `--help` must be instant.

Exit codes: 0 done; 1 failed; 2 usage, or not ready; 3 contract refused; 4 partly done.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.verdicts import Opinion

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.receipts import Receipt

app = typer.Typer(
    help="Nightly anomaly detection for tabular Parquet: contract, train, registry, score, review.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage or not ready, 3 contract refused, 4 partly done.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
review = typer.Typer(
    help="Records that wait for a person: the page (no verb), and the same from a shell.",
    invoke_without_command=True,
)
quarantine = typer.Typer(
    help="Records and batches set aside, and letting them in again.", no_args_is_help=True
)
app.add_typer(review, name="review")
app.add_typer(quarantine, name="quarantine")

DatasetName = Annotated[
    str, typer.Argument(metavar="DATASET", help="a dataset's name, see `vaewatch status`")
]
Key = Annotated[
    str | None, typer.Argument(metavar="[BATCH]", help="a batch_id, or first..last; default: all due")
]
AsJson = Annotated[bool, typer.Option("--json", help="machine-readable output on standard output")]
By = Annotated[str, typer.Option("--by", help="who decides; default: you")]
AnomalyId = Annotated[str, typer.Argument(help="as `review list` prints it; its first letters do")]
Reason = Annotated[str, typer.Option("--reason", help="why; kept as a tag on the version")]

PARTLY = 4
DAY = "%Y-%m-%d"


def main() -> None:
    """Run the command line; errors become one message and an exit code."""
    from pipeline.errors import VaewatchError

    code = 0
    try:
        app()
    except VaewatchError as fault:
        retry = " (a retry may help)" if fault.retry_can_help else ""
        typer.echo(f"error: {fault}{retry}", err=True)
        code = fault.exit_code
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of native libraries do not all survive an orderly end: one in five aborted


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"vaewatch {version('vaewatch')}")
        raise typer.Exit


@app.callback()
def vaewatch(
    version: Annotated[  # the callback answers
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Nightly anomaly detection for tabular Parquet: contract, train, registry, score, review."""


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="folder of Parquet files, a sample of what will land")],
    name: Annotated[str | None, typer.Option(help="the dataset's name; default: the folder's")] = None,
    force: Annotated[bool, typer.Option(help="replace a file that is there")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a dataset's YAML file from a sample: types, roles, rules and bounds, each guess with its reason."""
    import re

    from pipeline.errors import ConfigError
    from pipeline.inference import propose
    from pipeline.installation import Installation

    settings = Installation().settings
    folder = path.expanduser().absolute()
    default = folder.parent.name if folder.name in {"batches", "data", "incoming"} else folder.name
    dataset = name or re.sub("[^A-Za-z0-9_-]+", "-", default).strip("-") or "dataset"
    target = settings.datasets / f"{dataset}.yaml"
    if target.exists() and not force:
        raise ConfigError(f"{target} is there already; choose another --name, or --force to replace it")
    proposal = propose(
        folder,
        dataset,
        relative_to=settings.datasets,
        threads=settings.cores,
        scratch=settings.home / "work" / f"init-{dataset}",
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(proposal.text, encoding="utf-8")
    if as_json:
        return _print_json({"dataset": dataset, "file": str(target), "warnings": list(proposal.warnings)})
    typer.echo(f"wrote {target} from {proposal.n_records} records; {proposal.n_files} files are there")
    for warning in proposal.warnings:
        typer.echo(f"  look at {warning}")
    return typer.echo(f"next: read it, then `vaewatch run {dataset}`")


@app.command()
def validate(
    dataset: DatasetName,
    batch: Key = None,
    force: Annotated[bool, typer.Option(help="check again what was checked")] = False,
    as_json: AsJson = False,
) -> None:
    """Check batches against their contract: accept them, set records aside, or refuse them whole."""
    from pipeline import steps

    _finish([_told(as_json, partial(steps.validate, dataset, batch, force=force))], as_json)


@app.command()
def train(dataset: DatasetName, as_json: AsJson = False) -> None:
    """Train on the accepted records of the newest days; log and register the model."""
    from pipeline import steps

    with _progress(as_json) as on_progress:
        receipt = _told(as_json, partial(steps.train, dataset, on_progress=on_progress))
    _finish([receipt], as_json)


@app.command()
def score(
    dataset: DatasetName,
    batch: Key = None,
    force: Annotated[bool, typer.Option(help="score again what was scored")] = False,
    as_json: AsJson = False,
) -> None:
    """Score accepted batches with the champion; publish scores and flagged records."""
    from pipeline import steps

    _finish([_told(as_json, partial(steps.score, dataset, batch, force=force))], as_json)


@app.command()
def promote(
    dataset: DatasetName,
    version: Annotated[int | None, typer.Option(help="model version; default: the challenger")] = None,
    by: By = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Make a model version champion; the champion until now becomes `previous`."""
    from pipeline import steps

    _finish([steps.promote(dataset, version, by=by or getpass.getuser(), reason=reason)], as_json)


@app.command()
def rollback(dataset: DatasetName, by: By = "", reason: Reason = "", as_json: AsJson = False) -> None:
    """Make the previous champion champion again."""
    from pipeline import steps

    _finish([steps.rollback(dataset, by=by or getpass.getuser(), reason=reason)], as_json)


@app.command()
def run(
    dataset: Annotated[str | None, typer.Argument(metavar="[DATASET]", help="default: every dataset")] = None,
    as_json: AsJson = False,
) -> None:
    """Do everything that is due: validate, train where it is time, promote, score."""
    from pipeline import steps
    from pipeline.installation import Installation

    here = Installation()
    receipts = []
    for name in [dataset] if dataset else sorted(here.datasets()):
        receipts += _told(as_json, partial(steps.run, name, installation=here))
    _finish(receipts, as_json)


@app.command()
def status(
    dataset: Annotated[str | None, typer.Argument(metavar="[DATASET]", help="default: every dataset")] = None,
    as_json: AsJson = False,
) -> None:
    """What landed, what was accepted, set aside and flagged, and which model serves."""
    from pipeline import display, views
    from pipeline.installation import Installation

    found = views.status(Installation(), dataset)
    _print_json(found) if as_json else display.print_status(found, whole=dataset is not None)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at settings, folders, database, registry and datasets, and say what to mend."""
    from pipeline import display
    from pipeline.doctor import examine

    findings = examine()
    _print_json(findings) if as_json else display.print_findings(findings)
    if any(not finding["ok"] for finding in findings):
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a dataset file, for editors."""
    from pipeline.config import Dataset

    _print_json(Dataset.model_json_schema())


@review.callback()
def review_page(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8200,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    by: Annotated[str, typer.Option("--by", help="who reviews; default: you")] = "",
    name: Annotated[
        list[str] | None, typer.Option("--name", help="what other machines call this one; repeatable")
    ] = None,
) -> None:
    """Without a verb: serve the review page on this machine, and print the address to open."""
    if context.invoked_subcommand is None:
        from pipeline.review.web.alone import serve

        serve(host, port, by or getpass.getuser(), names=name or [], say=typer.echo)


@review.command("list")
def review_list(
    dataset: Annotated[str | None, typer.Argument(metavar="[DATASET]", help="default: every dataset")] = None,
    state: Annotated[
        Literal["any", "open", "anomaly", "normal", "expected_change", "data_error", "unsure", "conflict"],
        typer.Option(help="what verdicts came to; `open`: none holds"),
    ] = "open",
    driver: Annotated[str | None, typer.Option(help="column with the largest share")] = None,
    kind: Annotated[
        Literal["any", "flagged", "sampled", "cleared"], typer.Option(help="`sampled`: the random sample")
    ] = "any",
    batch: Annotated[str | None, typer.Option(help="one batch; default: all")] = None,
    since: Annotated[datetime | None, typer.Option(formats=[DAY], help="first day, like 2026-01-31")] = None,
    until: Annotated[datetime | None, typer.Option(formats=[DAY], help="last day")] = None,
    search: Annotated[str | None, typer.Option(help="beginning of a record's key or id")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many")] = 20,
    as_json: AsJson = False,
) -> None:
    """Records that wait for a person: the newest day first, on a day the most severe first."""
    from pipeline import display
    from pipeline.installation import Installation
    from pipeline.review import queue

    here = Installation()
    chosen = queue.Filters(
        dataset=dataset and here.dataset(dataset).dataset,
        state=None if state == "any" else state,
        kind=None if kind == "any" else kind,
        driver=driver,
        batch=batch,
        since=since.date().isoformat() if since else None,
        until=until.date().isoformat() if until else None,
        search=search,
    )
    found = queue.page(here.ledger, chosen, limit=limit)
    if as_json:
        _print_json(found.rows)
    else:
        display.print_queue(found.rows, queue.total(here.ledger, chosen))


@review.command("show")
def review_show(anomaly_id: AnomalyId, as_json: AsJson = False) -> None:
    """One record whole: original values, scores, reasons and verdicts."""
    from pipeline import display
    from pipeline.installation import Installation
    from pipeline.review import record

    here = Installation()
    found = record.one(here.ledger, record.find(here.ledger, anomaly_id))
    _print_json(found) if as_json else display.print_one(found)


@review.command("label")
def review_label(
    anomaly_id: AnomalyId,
    verdict: Annotated[Opinion, typer.Argument(help="what it was")],
    by: By = "",
    note: Annotated[str, typer.Option(help="why; kept beside the verdict")] = "",
    settle: Annotated[
        bool, typer.Option(help="end a disagreement: earlier verdicts no longer count")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a record was. The next training pushes anomalies and data errors out and keeps normal records in."""
    from dataclasses import asdict

    from pipeline.installation import Installation
    from pipeline.review import judging, record

    ledger, who = Installation().ledger, by or getpass.getuser()
    chosen = record.find(ledger, anomaly_id)
    given = judging.give(ledger, [chosen], verdict, by=who, note=note, settle=settle)
    if as_json:
        return _print_json({**asdict(given), "state": record.one(ledger, chosen)["state"]})
    typer.echo(f"{chosen}: {verdict}, says {who}; take it back with `vaewatch review undo {given.act}`")
    if given.conflicts:
        typer.echo(
            "reviewers differ on it: it is learned from neither way until they agree, or somebody says --settle"
        )
    return None


@review.command("undo")
def review_undo(
    act: Annotated[str | None, typer.Argument(metavar="[ACT]", help="default: your newest verdict")] = None,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Take back what was said: the entry stays in the history, and another one withdraws it."""
    from dataclasses import asdict

    from pipeline.installation import Installation
    from pipeline.review import judging

    ledger, who = Installation().ledger, by or getpass.getuser()
    done = judging.undo(ledger, act or judging.newest_act(ledger, by=who) or "", by=who)
    _print_json(asdict(done)) if as_json else typer.echo(
        f"withdrawn: {len(done.anomaly_ids)} verdict{'s' * (len(done.anomaly_ids) != 1)} of {who}"
    )


@review.command("export")
def review_export(
    dataset: DatasetName,
    out: Annotated[Path, typer.Argument(help="file to write: .parquet, .csv or .jsonl")],
    batch: Annotated[str | None, typer.Option(help="one batch; default: all")] = None,
) -> None:
    """Write flagged records, with what their verdicts come to, to a file."""
    from pipeline import views
    from pipeline.installation import Installation

    n_records = views.export(Installation(), dataset, out, batch_id=batch)
    typer.echo(f"wrote {n_records} flagged records to {out}")


@review.command("stats")
def review_stats(
    dataset: Annotated[str | None, typer.Argument(metavar="[DATASET]", help="default: every dataset")] = None,
    log: Annotated[bool, typer.Option("--log", help="log them on the model versions in MLflow")] = False,
    as_json: AsJson = False,
) -> None:
    """What verdicts add up to: precision by model version, recall, backlog, agreement, with intervals."""
    from dataclasses import asdict

    from pipeline import display
    from pipeline.installation import Installation
    from pipeline.review import statistics
    from pipeline.review.budget import suggested
    from pipeline.review.loop import log_review

    here = Installation()
    for name in ([dataset] if dataset else sorted(here.datasets())) if log else []:
        for version in log_review(here, here.dataset(name)):
            typer.echo(f"logged on version {version} of {name}", err=True)
    names = [dataset] if dataset else sorted(here.datasets())
    budgets = {name: one for name in names if (one := suggested(here, here.dataset(name)))}
    found = statistics.review(here.ledger, dataset and here.dataset(dataset).dataset)
    if as_json:
        return _print_json(
            statistics.as_dict(found) | {"budgets": {name: asdict(one) for name, one in budgets.items()}}
        )
    lines = [(f"suggested budget of {name}", one.text) for name, one in budgets.items()]
    return display.print_lines([*statistics.as_lines(found), *lines])


@review.command("fill")
def review_fill(
    dataset: Annotated[str | None, typer.Argument(metavar="[DATASET]", help="default: every dataset")] = None,
    force: Annotated[bool, typer.Option(help="fill in anew what the queue holds")] = False,
) -> None:
    """Put scored batches into the queue that it does not hold: those of before there was one, or of an earlier model."""
    from pipeline.installation import Installation
    from pipeline.review.filling import catch_up

    here = Installation()
    for name in [dataset] if dataset else sorted(here.datasets()):
        done = catch_up(
            here, here.dataset(name), force=force, say=lambda line: typer.echo(f"  {line}", err=True)
        )
        typer.echo(f"{name}: {len(done)} batches filled in")


@quarantine.command("list")
def quarantine_list(dataset: DatasetName, as_json: AsJson = False) -> None:
    """Batches that were refused or have records set aside, with counts by reason."""
    from pipeline import display, views
    from pipeline.installation import Installation

    found = views.quarantined(Installation(), dataset)
    _print_json(found) if as_json else display.print_quarantined(found)


@quarantine.command("show")
def quarantine_show(
    dataset: DatasetName,
    batch: Annotated[str, typer.Argument(help="a batch_id")],
    limit: Annotated[int, typer.Option(min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """Records of a batch that were set aside, with their reasons."""
    from pipeline import display, views
    from pipeline.installation import Installation

    found = views.set_aside(Installation(), dataset, batch, limit=limit)
    _print_json(found) if as_json else display.print_set_aside(found)


@quarantine.command("release")
def quarantine_release(
    dataset: DatasetName, batch: Annotated[str, typer.Argument(help="a batch_id")], as_json: AsJson = False
) -> None:
    """Check a batch again after its contract was mended, and score what now passes."""
    from pipeline import steps

    _finish(steps.release(dataset, batch), as_json)


def _told(as_json: bool, work: Callable[..., Any]) -> Any:
    """Do work that says how it goes, on standard error so that standard output stays clean."""
    return work() if as_json else work(say=lambda line: typer.echo(f"  {line}", err=True))


def _progress(as_json: bool) -> Any:
    from pipeline import display

    return display.training_progress(show=not as_json and sys.stderr.isatty())


def _finish(receipts: Sequence[Receipt], as_json: bool) -> None:
    """Print receipts and leave with the code they deserve."""
    from pipeline import display

    if as_json:
        _print_json([receipt.as_dict() for receipt in receipts])
    else:
        for receipt in receipts:
            display.print_receipt(receipt)
    outcomes = {receipt.outcome for receipt in receipts}
    if "partly done" in outcomes or ("refused" in outcomes and len(outcomes) > 1):
        raise typer.Exit(PARTLY)
    if "refused" in outcomes:
        raise typer.Exit(3)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


if __name__ == "__main__":
    main()
