"""`vaewatch review rules`: what keeps records with a known cause out of the queue.

Belongs here: arguments, and what a person or a machine reads. Does not: any work (review/suppression.py).
"""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.arguments import AnyDataset, AsJson, By, DatasetName, print_json, say

if TYPE_CHECKING:
    from pipeline.installation import Installation
    from pipeline.review.suppression import Rule

verbs = typer.Typer(
    help="Rules that hide flagged records with a known cause until a day.", no_args_is_help=True
)
Signature = Annotated[
    str,
    typer.Option(
        help='columns and directions that a record is odd in, as the page shows them: "amount↑ fee↓"'
    ),
]
Like = Annotated[str, typer.Option(help="a record's id: odd in the same columns and directions")]
Where = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="and this column has this value; repeatable")
]


@verbs.command("list")
def rules_list(dataset: AnyDataset = None, as_json: AsJson = False) -> None:
    """List every rule, newest first, those that hold no longer too; how many records each hides now, and how
    many like these were confirmed.
    """
    from pipeline.display.review import print_rules
    from pipeline.installation import Installation
    from pipeline.review import effects, suppression

    ledger = Installation().ledger
    found = effects.effects(ledger, suppression.rules(ledger, dataset))
    print_json(found) if as_json else print_rules(found, datetime.now(UTC).date().isoformat())


@verbs.command("preview")
def rules_preview(
    dataset: DatasetName,
    signature: Signature = "",
    like: Like = "",
    where: Where = None,
    as_json: AsJson = False,
) -> None:
    """Show what a rule would have hidden in the last 30 days, how many of these were confirmed, and how many
    open records of the whole queue it hides once it is added.
    """
    from pipeline.installation import Installation
    from pipeline.review import effects

    here = Installation()
    tried = effects.preview(here.ledger, _rule(here, dataset, signature, like, where))
    if as_json:
        return print_json(tried)
    typer.echo(tried.text)
    if tried.examples:
        say(f"such as {', '.join(tried.examples)}; see `vaewatch review show`")
    return None


@verbs.command("add")
def rules_add(
    dataset: DatasetName,
    until: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="the last day, like 2026-12-31")],
    note: Annotated[str, typer.Option(help="what is known about these records")],
    signature: Signature = "",
    like: Like = "",
    where: Where = None,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Keep a rule, and hide what it matches among the open records; they stay in every table and are
    counted.
    """
    from dataclasses import replace

    from pipeline.installation import Installation
    from pipeline.review import effects, suppression

    here = Installation()
    who, last = by or getpass.getuser(), until.date().isoformat()
    draft = replace(_rule(here, dataset, signature, like, where), by=who, note=note, ends_on=last)
    suppression.check(draft)
    tried = effects.preview(here.ledger, draft)
    kept = suppression.save(here.ledger, draft)
    if as_json:
        return print_json({**vars(kept), "preview": tried})
    typer.echo(tried.text)
    say(f"rule {kept.number} holds until {last}; end it with `vaewatch review rules end {kept.number}`")
    return None


@verbs.command("end")
def rules_end(
    number: Annotated[int, typer.Argument(help="as `rules list` prints it")],
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """End a rule now: what it hid, and no other rule hides, is in the queue again."""
    from pipeline.installation import Installation
    from pipeline.review import suppression

    n = suppression.end(Installation().ledger, number, by=by or getpass.getuser())
    print_json({"number": number, "n_released": n}) if as_json else typer.echo(
        f"rule {number} is ended; {n:,} record{'s are' if n != 1 else ' is'} in the queue again"
    )


def _rule(here: Installation, dataset: str, signature: str, like: str, where: list[str] | None) -> Rule:
    """Draft a rule from the command line's options.

    Raises:
        ConfigError: it would hide everything, a condition is malformed, or the dataset has no such column or
            value.
        NotReady: no record is like that.
    """
    from pipeline.errors import ConfigError
    from pipeline.review import record, rule_words, suppression

    name = here.dataset(dataset).name
    if like:
        signature = record.one(here.ledger, record.find(here.ledger, like, name)).signature
        if not signature:
            raise ConfigError(f"record {like} was not flagged: rules hide flagged records only")
    pairs = [said.partition("=") for said in where or []]
    if wrong := [column for column, equals, _ in pairs if not (column and equals)]:
        raise ConfigError(f"--where takes COLUMN=VALUE, not {wrong[0]!r}")
    if not signature and not pairs:
        raise ConfigError("this would hide everything: give --signature, --like or --where")
    given = suppression.conditions((column, value) for column, _, value in pairs)
    return rule_words.fitted(here, suppression.Rule(name, signature, given, "", "", ""))
