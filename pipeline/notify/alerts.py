"""Telling people what was found: once, until it clears or worsens, through the channels of the digest.

Belongs here: the words, and recording that they were sent. Does not: what is found (monitoring/judgement.py),
what of it is news (monitoring/findings.py), or how a text travels (digest.py). A message is recorded after it
was handed on: if the process is killed in between, it is sent twice rather than never.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from pipeline.config.dataset import Dataset
from pipeline.incoming.batches import is_undated
from pipeline.installation import Installation
from pipeline.monitoring import store
from pipeline.monitoring.findings import FEW_FLAGS, MOVED, SEVERITIES, Finding, gathered, leading, news
from pipeline.monitoring.judgement import redeliver
from pipeline.monitoring.store import Watched
from pipeline.notify import digest
from pipeline.report.batch import path_of

SHOWN = 8  # findings per message
LOOKED_AT = 30  # batches; enough to include those that a killed step left untold


def tell(here: Installation, dataset: Dataset, say: Callable[[str], None]) -> None:
    """Send alerts for every batch that has untold findings; several batches before the newest share one."""
    to = digest.channels(here, dataset)
    batches = store.newest(here.ledger, dataset.name, LOOKED_AT)
    before: tuple[Finding, ...] = ()
    untold, found = list[Watched](), dict[str, Sequence[Finding]]()
    for watched in batches:
        if unheard := [f for f in watched.findings if not f.told]:
            untold.append(watched)
            found[watched.batch_id] = [f for f in news(unheard, before) if not can_wait(f)]
        if not is_undated(watched.batch_id):  # an undated batch is no day to compare the next one with
            before = watched.findings
    for text in _messages(here, dataset, {name: new for name, new in found.items() if new}, batches):
        digest.send(text, to, say)
    for watched in untold:
        store.mark_told(here.ledger, dataset.name, watched)


def _messages(
    here: Installation,
    dataset: Dataset,
    found: Mapping[str, Sequence[Finding]],
    batches: Sequence[Watched],
) -> Iterator[str]:
    """Yield one message for the newest batch; if there are several before it, yield one for all of those."""
    newest = next((one.batch_id for one in reversed(batches) if not is_undated(one.batch_id)), "")
    older = {name: new for name, new in found.items() if name != newest}
    if len(older) > 1:
        yield _of_backlog(dataset, older)
    for name, new in found.items():
        if len(older) <= 1 or name not in older:
            yield words(dataset, name, new, where(here, dataset, name))


def _of_backlog(dataset: Dataset, found: Mapping[str, Sequence[Finding]]) -> str:
    """Return one message about several batches, the worst first, each with its leading findings."""
    name, ids = dataset.name, list(found)
    told = {one: gathered(new, dataset) for one, new in found.items()}
    leads = {one: leading(new) for one, new in told.items()}
    order = sorted(ids, key=lambda one: -SEVERITIES.index(leads[one][0].severity))
    every = [finding for new in told.values() for finding in new]
    lines = [f"{name} {ids[0]} to {ids[-1]}: {_counts(every)} on {len(ids)} batches"]
    for one in order[:SHOWN]:
        what = "; ".join(finding.what for finding in leads[one])
        lines.append(f"  {leads[one][0].severity}: {one}: {what}")
    more = [f"  and {len(order) - SHOWN} more batches"] if len(order) > SHOWN else []
    return "\n".join([*lines, *more, f"    next: see each batch's page: vaewatch report {name} BATCH"])


def can_wait(finding: Finding) -> bool:
    """Return whether the page is enough: a move that does not show in the scores, or what is known to last or
    long past.
    """
    return finding.severity == "notice" and finding.kind in {*MOVED, FEW_FLAGS}


def tell_refusal(
    here: Installation, dataset: Dataset, batch_id: str, reason: str, say: Callable[[str], None]
) -> None:
    """Report a refused delivery: none of it is scored, so nothing else would mention it."""
    state = here.ledger.newest(dataset.name, batch_id)
    refused = Finding(
        "refused",
        "alarm",
        f"the delivery was refused, nothing is scored: {reason[:500]}",
        redeliver(dataset, unreadable=state is not None and state.is_unreadable),
    )
    text = words(dataset, batch_id, [refused], where(here, dataset, batch_id))
    digest.send(text, digest.channels(here, dataset), say)


def tell_deaf(
    here: Installation, dataset: Dataset, version: int, misses: str, say: Callable[[str], None]
) -> None:
    """Report a version that now serves and hardly flags anything: its quiet nights would pass for good."""
    text = (
        f"{dataset.name}: version {version} serves from now on, and misses most anomalies\n"
        f"  warning: {misses}\n    next: vaewatch versions {dataset.name} {version}"
    )
    digest.send(text, digest.channels(here, dataset), say)


def tell_learned_alarm(
    here: Installation, dataset: Dataset, version: int, doubt: str, say: Callable[[str], None]
) -> None:
    """Report a version that learned a batch under an alarm: it may take the same fault for normal."""
    text = f"{dataset.name}: version {version} is trained, but\n  warning: {doubt}"
    digest.send(text, digest.channels(here, dataset), say)


def words(dataset: Dataset, batch_id: str, findings: Sequence[Finding], address: str) -> str:
    """Return a message: the counts in its first line, then each finding with its next step."""
    shown = gathered(findings, dataset)
    lines = [f"{dataset.name} {batch_id}: {_counts(shown)}"]
    for finding in shown[:SHOWN]:
        lines += [f"  {finding.severity}: {finding.what}", f"    next: {finding.next_step}"]
    if len(shown) > SHOWN:
        lines.append(f"  and {len(shown) - SHOWN} more")
    return "\n".join([*lines, f"  {address}"])


def _counts(findings: Sequence[Finding]) -> str:
    counted = Counter(finding.severity for finding in findings)
    return ", ".join(
        f"{n} {severity}{'s' if n > 1 else ''}"
        for severity in reversed(SEVERITIES)
        if (n := counted[severity])
    )


def where(here: Installation, dataset: Dataset, batch_id: str) -> str:
    """Return where the batch's report is: on the review page if the dataset's file names one, else a path."""
    if dataset.review.page:
        return f"{dataset.review.page.rstrip('/')}/report/{dataset.name}/{batch_id}/run.html"
    return str(path_of(here, dataset, batch_id))
