"""The page beside a batch's checkpoint.json: the verdict, and one row per rule.

Belongs here: how a result looks. Does not: what it says (wording.py). Great Expectations' own Data Docs weigh
4 MB, take seconds and load styles, scripts and fonts from elsewhere; this page is one file that needs nothing
else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape

from pipeline.expectations.outcome import CheckpointResult, Outcome
from pipeline.expectations.wording import NAMES, many, share

FOLD = 12
STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5d6879; --line: #e1e5ec; --page: #f6f7f9; --card: #fff;
  --good: #17704a; --good-bg: #e2f4ea; --warn: #8a5200; --warn-bg: #fdf0d8; --bad: #b3261e; --bad-bg: #fdeae8;
  --warn-bar: #e2a33a; --bad-bar: #dd5f55; --code: #f0f2f6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a3b5; --line: #2a3240; --page: #0f131a;
  --card: #171d27; --good: #6fd3a1; --good-bg: #143527; --warn: #f0bc6b; --warn-bg: #3a2a10; --bad: #ff9d94;
  --bad-bg: #40191a; --warn-bar: #b98431; --bad-bar: #c4564e;
  --code: #202836; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 56px; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 20px; margin-bottom: 24px; }
header div { flex: 1 1 320px; min-width: 0; }
.soft { margin: 0; color: var(--soft); font-size: 13px; letter-spacing: .02em; }
h1 { margin: 2px 0; font-size: 27px; line-height: 1.2; letter-spacing: -.015em; overflow-wrap: anywhere; }
h2 { margin: 36px 0 10px; font-size: 16px; } h2 small { color: var(--soft); font-weight: 400; font-size: 13px; }
.verdict { padding: 9px 20px; border-radius: 999px; font-size: 16px; font-weight: 650; white-space: nowrap; }
a { color: inherit; text-underline-offset: 3px; }
.good { color: var(--good); background: var(--good-bg); } .warn { color: var(--warn); background: var(--warn-bg); }
.bad { color: var(--bad); background: var(--bad-bg); }
.why { margin: 0 0 24px; padding: 14px 20px; border-radius: 12px; } .why p { margin: 3px 0; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 14px; }
.cards div { padding: 16px 20px; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.cards b { display: block; font-size: 28px; line-height: 1.2; letter-spacing: -.02em; font-weight: 640;
  font-variant-numeric: tabular-nums; }
.cards span { color: var(--soft); font-size: 13px; }
.table { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
table { width: 100%; border-collapse: collapse; line-height: 1.4; }
th { padding: 10px 16px; text-align: left; color: var(--soft); font-size: 12px; font-weight: 550; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
td { padding: 10px 16px; vertical-align: top; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
tbody tr:first-child td { border-top: 0; }
td.name { min-width: 120px; font-weight: 550; } td.wide { min-width: 180px; }
td.count { min-width: 150px; font-variant-numeric: tabular-nums; }
td.tag, .tag { white-space: nowrap; } .tag span { padding: 2px 10px; border-radius: 999px; font-size: 12.5px; font-weight: 550; }
td small { display: block; color: var(--soft); font-size: 12px; font-weight: 400; }
.bar { height: 4px; margin-top: 6px; border-radius: 2px; background: var(--code); overflow: hidden; }
.bar i { display: block; height: 100%; min-width: 2px; background: var(--warn-bar); }
.bar i.bad { background: var(--bad-bar); }
code { display: inline-block; max-width: 100%; margin: 1px 3px 1px 0; padding: 0 6px; border-radius: 5px; background: var(--code);
  font: 12.5px/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; unicode-bidi: isolate; white-space: pre-wrap; }
details summary { margin: 36px 0 10px; font-size: 16px; font-weight: 700; cursor: pointer; }
footer { margin-top: 40px; color: var(--soft); font-size: 13px; }
@media print { body { background: none; } main { max-width: none; padding: 0; } }
"""
TABLES = """
td.name { min-width: 170px; }
/* on a narrow screen a row is a block, each cell under its column's name: nothing to scroll
   for, and no word broken */
@media (max-width: 800px) { main { padding: 28px 16px 40px; } thead { display: none; }
  .table, table, tbody { display: block; } tr { display: flex; flex-wrap: wrap; gap: 8px 20px; padding: 12px 16px;
    border-top: 1px solid var(--line); } tr:first-child { border-top: 0; }
  td, td.wide, td.count { flex: 1 1 100%; min-width: 0; padding: 0; border: 0; } td:empty { display: none; }
  td.name { flex: 1 1 60%; } td.tag { order: -1; margin-left: auto; flex: none; } td.name { order: -2; }
  td[data-is]::before { content: attr(data-is); display: block; color: var(--soft); font-size: 12px; } }
"""


BATCH = ("Rule", "Promised", "Found", "")
BROKEN = ("Column", "Promised", "Broken by", "For example", "")
KEPT = ("Column", "Promised", "Checked as", "")


def render(
    result: CheckpointResult,
    *,
    dataset: str,
    batch_id: str,
    mostly: float,
    checked_at: datetime,
    version: str,
    notes: Sequence[str] = (),
) -> str:
    """Return the page as HTML, without scripts; nothing is fetched from anywhere.

    Args:
        notes: what was accepted and is worth knowing.
        version: Great Expectations'.
    """
    batch = [outcome for outcome in result.outcomes if outcome.severity == "critical"]
    records = [outcome for outcome in result.outcomes if outcome.severity == "warning"]
    broken = sorted((o for o in records if o.n_unexpected), key=lambda o: -(o.n_unexpected or 0))
    kept = [outcome for outcome in records if not outcome.n_unexpected]
    body = f"""{_why(batch)}{_noted(notes)}
{_cards(result, batch, n_broken=len(broken) + sum(not o.success for o in batch))}
{_section("Rules about the batch", "one broken rule refuses it", BATCH, map(_batch_row, batch))}
{_section("Rules that records broke", _tolerance(mostly), BROKEN, _broken_rows(broken, result.n_records, mostly))}
{_section("Rules that every record kept", many(len(kept), "rule"), KEPT, map(_kept_row, kept), folded=len(kept) > FOLD)}
<footer>Great Expectations {escape(version)} checked {many(len(result.outcomes), "rule")} over every record; its own
result is in checkpoint.json beside this page. Values shown as examples are the first few that break a rule.</footer>"""
    return _document(f"{dataset} / {batch_id}", checked_at, body, success=result.success)


def render_refusal(
    reasons: Sequence[str], *, dataset: str, batch_id: str, contract: str, checked_at: datetime
) -> str:
    """Return the page of a delivery that was refused before its records could be checked."""
    said = "".join(f"<p>{escape(reason)}</p>" for reason in reasons)
    what = "The files do not fit the contract" if contract else "The files cannot be read"
    mend = (
        f", or, if the data is right, mend <code>{escape(contract)}</code>; either way it"
        if contract
        else "; it"
    )
    body = f"""<div class="why bad">{said}</div>
<footer>{what}: no record was checked, and nothing of this delivery was published. Have it
delivered again{mend} is checked anew by itself.</footer>"""
    return _document(f"{dataset} / {batch_id}", checked_at, body, success=False)


def _document(name: str, checked_at: datetime, body: str, *, success: bool) -> str:
    tone, verdict = ("good", "✓ Accepted") if success else ("bad", "✕ Refused")
    title = escape(name)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}: {verdict}</title>
<link rel="icon" href="data:,">
<style>{STYLE}{TABLES}</style>
</head>
<body>
<main>
<header>
<div><p class="soft">Contract check</p><h1>{title}</h1>
<p class="soft">{checked_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC · <a href="run.html">can this batch be trusted</a></p></div>
<span class="verdict {tone}">{verdict}</span>
</header>
{body}
</main>
</body>
</html>
"""


def _why(batch: Sequence[Outcome]) -> str:
    broken = [o for o in batch if not o.success]
    reasons = [
        f"<p><b>{NAMES[o.code].capitalize()}</b>: {escape(o.observed)}. Promised: {escape(o.promise)}.</p>"
        for o in broken
    ]
    return f'<div class="why bad">{"".join(reasons)}</div>' if broken else ""


def _noted(notes: Sequence[str]) -> str:
    said = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f'<div class="why warn"><p><b>Noted</b></p>{said}</div>' if notes else ""


def _cards(result: CheckpointResult, batch: Sequence[Outcome], *, n_broken: int) -> str:
    n_rules = len(result.outcomes)
    cards = [("Records", f"{result.n_records:,}", "all of them checked")]
    for outcome in batch:
        if outcome.code == "share_set_aside":
            part = share(outcome.n_unexpected or 0, result.n_records)
            cards.append((
                "Set aside",
                part,
                f"{many(outcome.n_unexpected or 0, 'record')}; {outcome.promise}",
            ))
    cards.append(("Rules kept", f"{n_rules - n_broken:,} of {n_rules:,}", "by the batch and by every record"))
    return (
        '<div class="cards">'
        + "".join(
            f"<div>{label}<b>{number}</b><span>{escape(note)}</span></div>" for label, number, note in cards
        )
        + "</div>"
    )


def _section(
    title: str, note: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, folded: bool = False
) -> str:
    body = "".join(f"<tr>{''.join(map(_under, head, row))}</tr>" for row in rows)
    if not body:
        return ""
    columns = "".join(f"<th>{name}</th>" for name in head)
    table = f'<div class="table"><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'
    heading = f"{title} <small>{note}</small>"
    if folded:
        return f"<details><summary>{heading}</summary>{table}</details>"
    return f"<h2>{heading}</h2>{table}"


def _under(name: str, cell: str) -> str:
    """Return a cell that knows the name of its column; the first of a row, and its mark, need none."""
    is_plain = name and not cell.startswith(('<td class="name"', '<td class="tag"'))
    return cell.replace("<td", f'<td data-is="{name}"', 1) if is_plain else cell


def _batch_row(outcome: Outcome) -> tuple[str, ...]:
    tag = _tag("good", "kept") if outcome.success else _tag("bad", "broken")
    about = f"<small>{escape(outcome.column)}</small>" if outcome.column else ""
    name = f"{NAMES[outcome.code].capitalize()}{about}"
    return _cell(name, "name"), _cell(escape(outcome.promise)), _cell(escape(outcome.observed)), tag


def _tolerance(mostly: float) -> str:
    return f"such records are set aside; more than {share(1 - mostly, 1)} of a column's values is too many"


def _broken_rows(broken: Sequence[Outcome], n_records: int, mostly: float) -> Iterator[tuple[str, ...]]:
    """Yield a row per broken rule, with a bar that is full where no more would be tolerated."""
    most = max(1.0, (1 - mostly) * n_records)
    for outcome in broken:
        n, tone = outcome.n_unexpected or 0, "warn" if outcome.success else "bad"
        bar = f'<div class="bar"><i class="{tone}" style="width: {100 * min(1, n / most):.1f}%"></i></div>'
        examples = "".join(f"<code>{escape(value)}</code>" for value in outcome.examples)
        yield (
            _cell(escape(outcome.column or "several"), "name"),
            _cell(f"{escape(outcome.promise)}<small>{NAMES[outcome.code]}</small>", "wide"),
            _cell(f"{n:,}<small>{share(n, n_records)} of records</small>{bar}", "count"),
            _cell(examples, "wide"),
            _tag(tone, "tolerated" if outcome.success else "too many"),
        )


def _kept_row(outcome: Outcome) -> tuple[str, ...]:
    expectation = f"<small>{escape(outcome.expectation)}</small>"
    return (
        _cell(escape(outcome.column or "several"), "name"),
        _cell(escape(outcome.promise)),
        _cell(expectation),
        _tag("good", "kept"),
    )


def _cell(html: str, kind: str = "") -> str:
    return f'<td class="{kind}">{html}</td>' if kind else f"<td>{html}</td>"


def _tag(tone: str, text: str) -> str:
    return f'<td class="tag"><span class="{tone}">{text}</span></td>'
