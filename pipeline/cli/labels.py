"""`vaewatch review label`, `undo` and `groups`: saying what records were, and taking it back.

Belongs here: arguments, and what a person or a machine reads. Does not: any work (review/judging.py,
review/groups.py).
"""

from __future__ import annotations

import getpass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.arguments import AnyDataset, AsJson, By, print_json, say
from pipeline.records.verdicts import Opinion, in_words

if TYPE_CHECKING:
    from pipeline.installation import Installation
    from pipeline.review.filters import Filters
    from pipeline.review.groups import Group
    from pipeline.review.judging import Judged

DAY, OF_NONE = "%Y-%m-%d", "no single column"
SHOWN = 5  # ids
Since = Annotated[
    datetime | None, typer.Option(formats=[DAY], help="only days from this one on; default: all")
]


def groups(
    dataset: AnyDataset = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="how many")] = 30,
    as_json: AsJson = False,
) -> None:
    """List open records that are odd alike, the largest groups first: each is likely one cause, and can be
    labelled at once.
    """
    from pipeline.display.review import print_groups
    from pipeline.installation import Installation
    from pipeline.review import groups as gathering

    here = Installation()
    chosen = _filters(dataset and here.dataset(dataset).name, since, None)
    found = gathering.groups(here.ledger, chosen, limit=limit)
    if as_json:
        return print_json(found)
    return print_groups(found, gathering.size(here.ledger, chosen), chosen.since)


def label(
    anomaly_ids: Annotated[
        list[str],
        typer.Argument(
            metavar="ID",
            help="as `review list` prints them; the first letters are enough",
            default_factory=list,
            show_default=False,
        ),
    ],
    verdict: Annotated[Opinion, typer.Argument(help="what they were")],
    group: Annotated[
        str,
        typer.Option(metavar="SIGNATURE", help="every open record of a group, as `review groups` prints it"),
    ] = "",
    like: Annotated[
        str, typer.Option(metavar="ID", help="every open record of the group that this one is in")
    ] = "",
    dataset: Annotated[
        str | None, typer.Option(help="the group's; needed if several datasets have the group")
    ] = None,
    since: Since = None,
    expect: Annotated[
        int | None,
        typer.Option(min=1, help="how many records the group has; if more or fewer, nothing is written"),
    ] = None,
    by: By = "",
    note: Annotated[str, typer.Option(help="why; kept beside the verdict")] = "",
    settle: Annotated[
        bool, typer.Option(help="end a disagreement: earlier verdicts no longer count")
    ] = False,
    anyway: Annotated[
        bool, typer.Option(help="also for records that somebody else is at; else these are left out")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what records were: one, several, or a whole group. The next training leaves anomalies and data
    errors out; both kinds weigh the score.
    """
    from pipeline.errors import ClaimedByAnother
    from pipeline.installation import Installation
    from pipeline.review import judging, queue, record

    here, who = Installation(), by or getpass.getuser()
    is_group = bool(group or like or dataset or since or expect)
    _check_choice(anomaly_ids, group, like, is_group=is_group, settle=settle)
    try:
        if is_group:
            meant = _group(here, group, like, dataset, since)
            which, n = _filters(meant.dataset, since, meant.signature), expect or meant.n
            given = judging.give_group(here.ledger, which, verdict, by=who, note=note, n=n, anyway=anyway)
            asked, of = (
                [*given.anomaly_ids, *given.claimed],
                f" of {meant.dataset}, odd in {_named(meant.signature)}",
            )
        else:
            asked, of = [record.find(here.ledger, beginning) for beginning in anomaly_ids], ""
            given = judging.give(here.ledger, asked, verdict, by=who, note=note, settle=settle, anyway=anyway)
    except ClaimedByAnother as fault:
        raise ClaimedByAnother(f"{fault} (--anyway)") from fault
    if as_json:
        return print_json({**vars(given), "states": queue.states(here.ledger, asked)})
    return _tell(given, len(set(asked)), verdict, who, of)


def undo(
    act: Annotated[str | None, typer.Argument(metavar="[ACT]", help="default: your newest")] = None,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Take back one act: all that one command or press said, of one record or of many. The history keeps
    it, and that it was withdrawn.
    """
    from pipeline.installation import Installation
    from pipeline.review import acts, judging, queue

    ledger, who = Installation().ledger, by or getpass.getuser()
    done = judging.undo(ledger, act or acts.newest(ledger, by=who) or "", by=who)
    if as_json:
        return print_json(done)
    n = len(done.anomaly_ids)
    if not n:
        return typer.echo("nothing changed: those verdicts were already taken back")
    holds = in_words(queue.states(ledger, done.anomaly_ids).values())
    now = f"; now: {holds}" if holds else ""
    return typer.echo(f"withdrawn: {n:,} verdict{'s' * (n != 1)} of {who}{_some(done.anomaly_ids)}{now}")


def _check_choice(anomaly_ids: list[str], group: str, like: str, *, is_group: bool, settle: bool) -> None:
    from pipeline.errors import ConfigError

    if bool(anomaly_ids) + bool(group) + bool(like) != 1:
        raise ConfigError("say which records, in one way: by their ids, by --group SIGNATURE or by --like ID")
    if anomaly_ids and is_group:
        raise ConfigError("--dataset, --since and --expect go with a group, not with records' ids")
    if is_group and settle:
        raise ConfigError("--settle is for records on which reviewers differ; a group has only open ones")


def _tell(given: Judged, n_asked: int, verdict: str, who: str, of: str) -> None:
    """Print what was written, for how many records, and how to take it back."""
    n, left = len(given.anomaly_ids), given.claimed
    n_before = n_asked - n - len(left)
    if left:
        typer.echo(
            f"left out, because somebody else is at them: {len(left)}{_some(left)}; --anyway includes them"
        )
    if not n:
        alike = "" if n_asked == 1 else f" of all {n_asked}"
        return typer.echo(f"nothing changed: {who} already said {verdict}{alike}")
    said = f"{verdict}, says {who}"
    what = given.anomaly_ids[0] if n == 1 else f"{n:,} records"
    was = f"; before: {in_words(states)}" if {*(states := given.before.values())} - {"open", verdict} else ""
    already = f"; {n_before} more had it already" if n_before else ""
    typer.echo(f"{what}{of}: {said}{_some(given.anomaly_ids) if n > 1 else ''}{was}{already}")
    say(f"take {'it' if n == 1 else 'all of it'} back with `vaewatch review undo {given.act}`")
    if given.conflicts:
        typer.echo(
            f"reviewers differ on {len(given.conflicts)}{_some(given.conflicts)}: no verdict on them counts until they agree, or "
            "somebody gives one with --settle"
        )
    return None


def _some(anomaly_ids: tuple[str, ...]) -> str:
    """Return the first few ids, in brackets."""
    more = f" and {len(anomaly_ids) - SHOWN} more" if len(anomaly_ids) > SHOWN else ""
    return f" ({', '.join(anomaly_ids[:SHOWN])}{more})" if anomaly_ids else ""


def _group(
    here: Installation, signature: str, like: str, dataset: str | None, since: datetime | None
) -> Group:
    """Return the one group that is meant, with how many open records it has now.

    Raises:
        NotReady: there is none.
        ConfigError: more than one dataset has such a group.
    """
    from pipeline.errors import ConfigError, NotReady
    from pipeline.review import record
    from pipeline.storage.review_schema import NO_COLUMN

    if like:
        row = record.one(here.ledger, record.find(here.ledger, like, dataset))
        signature, dataset = row.signature, row.dataset
    signature = NO_COLUMN if signature == OF_NONE else signature
    found = _open_groups(here, dataset, since, signature) if signature else []
    if not found:
        what = f"like {like}" if like else f"odd in {signature!r}"
        where = f" of {dataset}" if dataset else ""
        raise NotReady(f"no open record{where} is {what}; `vaewatch review groups` lists the groups")
    if len(found) > 1:
        names = ", ".join(f"{one.dataset} ({one.n} open)" for one in found)
        raise ConfigError(f"several datasets have this group: {names}; say which with --dataset")
    return found[0]


def _open_groups(
    here: Installation, dataset: str | None, since: datetime | None, signature: str | None = None
) -> list[Group]:
    from pipeline.review import groups

    return groups.groups(here.ledger, _filters(dataset and here.dataset(dataset).name, since, signature))


def _filters(dataset: str | None, since: datetime | None, signature: str | None) -> Filters:
    from pipeline.review.filters import Filters

    day = since.date().isoformat() if since else None
    return Filters(dataset=dataset, state="open", since=day, signature=signature)


def _named(signature: str) -> str:
    from pipeline.storage.review_schema import NO_COLUMN

    return OF_NONE if signature == NO_COLUMN else signature
