"""The table of variants in docs/reference/family.md: what settings other than the default are worth.

A row is written once its method is complete on its sets under both protocols; until then the page's row
stays. So a run of one variant (``--variants --only``) renews that variant's row alone. Every difference is
paired with the default of the same run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.bench.adbench import PROTOCOLS
from tests.bench.measure import Result
from tests.bench.methods import BASE, VARIANTS, every_second, fingerprint, sets_of
from tests.bench.ranking import mean_and_error
from tests.bench.report import BEGIN, END, ahead, compare, plain, write

PAGE = Path("docs/reference/family.md")
HEAD = "| | sets | contaminated | default ahead by | clean | default ahead by |\n|---|---|---|---|---|---|"
TOLD = ("auroc", "average_precision")


def table(rows: dict[str, str]) -> str:
    """As Markdown."""
    return "\n".join([HEAD, *rows.values()])


def renew(page: Path, new: dict[str, str]) -> None:
    """Put the rows on the page, in place of those of the same methods."""
    _, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    rows = old_rows(rest.partition(END)[0]) | new
    order = [*(name for name in VARIANTS if name in rows), *(name for name in rows if name not in VARIANTS)]
    write(page, table({name: rows[name] for name in order}))


def old_rows(text: str) -> dict[str, str]:
    """The table's lines by method, without its head."""
    found = {}
    for line in text.splitlines():
        label = line.split("|")[1].strip().strip("`") if line.startswith("| ") else ""
        if label:
            found[label] = line
    return found


def new_rows(results: list[Result], sets: list[str]) -> dict[str, str]:
    """Of the default, and of every variant that is complete."""
    first = min((result.seed for result in results), default=0)
    results = [result for result in results if result.seed == first]
    found = {}
    measured = {result.method for result in results}
    for name in (name for name in VARIANTS if name in measured):
        some = sets_of(VARIANTS[name], sets)
        told = [in_words(results, protocol, name, some) for protocol in PROTOCOLS]
        if all(told):
            cells = [f"`{name}`" if ":" in name else name, named(some, sets)]
            found[name] = (
                "| " + " | ".join([*cells, *(cell for pair in told if pair for cell in pair)]) + " |"
            )
    return found


def named(some: list[str], sets: list[str]) -> str:
    """How many sets, and which where it is not every second one."""
    return str(len(some)) if some == every_second(sets) else f"{len(some)}: {', '.join(map(plain, some))}"


def in_words(results: Iterable[Result], protocol: str, name: str, some: list[str]) -> tuple[str, str] | None:
    """A row's means, and by how much the default is ahead; None where a result is missing or has failed."""
    if name != BASE and fingerprint(VARIANTS[name], protocol) == fingerprint(VARIANTS[BASE], protocol):
        return "(the default there)", ""
    both = compare(results, protocol, dict.fromkeys((BASE, name)), some) if some else None
    if both is None or name not in both.methods or both.failures[name]:
        return None
    row = both.methods.index(name)
    means = [mean_and_error(100 * both.values[x][row])[0] for x in TOLD]
    return " / ".join(f"{x:.1f}" for x in means), " / ".join(ahead(both, row, x) for x in TOLD if row)
