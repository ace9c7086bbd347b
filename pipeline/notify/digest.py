"""A short message after each batch, or one after several that piled up: how many records wait, the three most
severe with their reasons, where to look, and whether the flags are in doubt.

Belongs here: the words, and handing them to a file, a webhook or e-mail. Does not: when (steps/). No message
is sent where nothing waits. A batch is marked as told before its message is handed on: if the process is
killed in between, the message is lost rather than repeated, and the queue still has the batch. A failed
delivery is logged; the batch is scored all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

from pipeline.config.dataset import Dataset
from pipeline.errors import NotDelivered, VaewatchError
from pipeline.incoming.batches import is_undated, landed
from pipeline.installation import Installation
from pipeline.monitoring import store
from pipeline.monitoring.findings import gathered, leading, worst
from pipeline.records.window import order
from pipeline.report.trust import doubt
from pipeline.review import intake, queue
from pipeline.review.filters import Filters
from pipeline.review.queued import Listed

SHOWN = 3
PATIENCE = 10.0  # seconds

Channel = Callable[[str], None]  # hands a text on; raises NotDelivered


def digest(here: Installation, dataset: Dataset, batch_id: str) -> str | None:
    """Return the digest of a batch, or None where nothing in it waits for a person."""
    mine = Filters(dataset=dataset.name, batch=batch_id, kind="flagged", state="open")
    n = queue.total(here.ledger, mine)
    if not n:
        return None
    held = intake.held(here.ledger, dataset.name)[batch_id]
    n_hidden = queue.total(here.ledger, replace(mine, suppressed=True))
    hidden = f", {n_hidden:,} more hidden by rules" if n_hidden else ""
    found = gathered(store.findings(here.ledger, dataset.name, [batch_id]).get(batch_id, ()), dataset)
    alarms = [finding for finding in found if finding.severity == "alarm"]
    doubted = f"{doubt(found)}; " if alarms else ""
    lines = [
        f"{dataset.name} {batch_id}: {doubted}{n:,} of {held.n_flagged + held.n_unflagged:,} records wait for review "
        f"(model version {held.model_version}{hidden})",
        *(f"  alarm: {alarm.what}" for alarm in leading(alarms)),
        *map(_line, queue.page(here.ledger, mine, limit=SHOWN).rows),
        *_link(dataset, batch=batch_id),
    ]
    return "\n".join(lines)


def of_backlog(here: Installation, dataset: Dataset, batch_ids: Sequence[str]) -> str | None:
    """Return one digest of several batches, or None where nothing in them waits for a person."""
    every = [Filters(dataset=dataset.name, batch=one, kind="flagged", state="open") for one in batch_ids]
    waiting = {one.batch: n for one in every if (n := queue.total(here.ledger, one))}
    if not waiting:
        return None
    known = store.findings(here.ledger, dataset.name, list(map(str, waiting)))
    doubted = [one for one, found in known.items() if worst(found) == "alarm"]
    alarmed = f"; {len(doubted)} with an alarm: read the page first" if doubted else ""
    rows = [
        row for one in every if one.batch in waiting for row in queue.page(here.ledger, one, limit=SHOWN).rows
    ]
    rows.sort(key=lambda row: (-row.severity, -row.anomaly_score))
    lines = [
        f"{dataset.name} {batch_ids[0]} to {batch_ids[-1]}: {sum(waiting.values()):,} records of {len(waiting)} batches "
        f"wait for review ({len(batch_ids)} batches scored{alarmed})",
        *(f"{_line(row)}, batch {row.batch_id}" for row in rows[:SHOWN]),
        *_link(dataset),
    ]
    return "\n".join(lines)


def _line(row: Listed) -> str:
    """Return one record's line: how severe, which, and why."""
    why = "; ".join(
        f"{reason.column} {reason.observed_text[:40]} (expected {reason.expected_text[:40]})"
        for reason in row.reasons
    )
    return f"  {row.severity:.1f}  {row.name[:60]}  {why or 'of no single column'}"


def _link(dataset: Dataset, **asked: str) -> list[str]:
    """Return a line with the records' address, if the dataset's file names the review page."""
    page = dataset.review.page
    return [f"  {page.rstrip('/')}/?{urlencode({'dataset': dataset.name, **asked})}"] if page else []


def tell(
    here: Installation, dataset: Dataset, say: Callable[[str], None], *, failed: Collection[str] = ()
) -> None:
    """Send digests of the scored batches that nobody was told of: one for the newest, one for all before it.

    Nothing is sent while the newest batch waits to be scored: a backlog is being worked off, in whatever
    order and by however many processes.

    Args:
        failed: batches that could not be scored, and are no longer waited for.
    """
    to = channels(here, dataset)
    current = here.ledger.current(dataset.name)
    waits = {one for one, state in current.items() if state.status == "accepted"} - set(failed)
    if to:
        with suppress(VaewatchError):  # validation reports what is wrong with the folder
            waits |= {batch.batch_id for batch in landed(dataset, here.ledger)} - current.keys()
    scored = [one for one, state in current.items() if state.status == "scored"]
    known = (order(current.get(one, one)) for one in [*scored, *waits] if not is_undated(one))
    newest = max(known, default=(True, None, ""))[-1]
    if newest in waits:
        return
    untold = intake.take_untold(here.ledger, dataset.name, scored)
    older = [one for one in untold if one != newest]
    texts = (
        [of_backlog(here, dataset, older)]
        if len(older) > 1
        else [digest(here, dataset, one) for one in older]
    )
    texts += [digest(here, dataset, newest)] if newest in untold else []
    for text in filter(None, texts):
        send(text, to, say)


def channels(here: Installation, dataset: Dataset) -> list[Channel]:
    """Return the channels that a dataset's file asks for."""
    asked, found = dataset.review, list[Channel]()
    if asked.digest_file is not None:
        found.append(partial(_to_file, here.settings.home / Path(asked.digest_file).expanduser()))
    if asked.webhook is not None:
        found.append(partial(_to_webhook, asked.webhook))
    if asked.email:
        found.append(lambda text: here.post(asked.email, text.partition("\n")[0], text))
    return found


def send(text: str, to: Sequence[Channel], say: Callable[[str], None]) -> None:
    """Hand a message to every channel; a failed delivery is reported and does not stop the others."""
    for deliver in to:
        try:
            deliver(text)
        except NotDelivered as fault:
            say(f"message not delivered: {fault}: {text.partition(chr(10))[0]}")


def _to_file(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as out:
            out.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC} {text}\n")
    except OSError as fault:
        raise NotDelivered(str(fault)) from fault


def address(name: str) -> str:
    """Return the address of a webhook, which an environment variable of this name holds.

    Raises:
        NotDelivered: it holds none.
    """
    import os

    if not (found := os.environ.get(name)):
        raise NotDelivered(f"the environment variable {name} holds no address")
    return found


def _to_webhook(name: str, text: str) -> None:
    import httpx

    try:
        answer = httpx.post(address(name), json={"text": text}, timeout=PATIENCE)
    except (httpx.HTTPError, httpx.InvalidURL) as fault:
        raise NotDelivered(f"{name}: {type(fault).__name__}") from None  # without the address: it is a secret
    if not answer.is_success:
        raise NotDelivered(f"{name} answers {answer.status_code}")
