"""The tables of `make bench-quality`, from cached results to Markdown."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tests.bench.diagram import draw
from tests.bench.measure import MEASURES, Result
from tests.bench.methods import OURS
from tests.bench.ranking import Array, friedman_p, mean_and_error, ranks

PAGE, KEPT_BACK = Path("docs/reference/quality.md"), Path("docs/reference/quality-kept-back.md")
BEGIN, END = "<!-- begin: written by make bench-quality -->", "<!-- end -->"
HEAD = (
    "| | AUROC | average precision | recall at 1 % | ours ahead by: AUROC | average precision | mean rank: AUROC "
    "| average precision | seconds a fit | |\n|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Comparison:
    """Methods that have a result on every set of one protocol with every seed that the first has.

    values: by measure, (n_methods, n_sets), means over seeds, NaN where every seed failed.
    failures: reasons by method and set. seconds: by method, the median fit.
    """

    protocol: str
    methods: list[str]
    sets: list[str]
    values: dict[str, Array]
    n_seeds: int
    failures: dict[str, dict[str, list[str]]]
    seconds: dict[str, float]

    def ranked(self, measure: str) -> Array:
        return ranks(self.values[measure])


def compare(
    results: Iterable[Result], protocol: str, methods: Iterable[str], sets: list[str]
) -> Comparison | None:
    """None where not even the first is complete, which the others are held against."""
    methods = list(methods)
    cells: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        if result.protocol == protocol and result.set_name in sets:
            cells[result.method][result.set_name].append(result)
    n_seeds = min(len(cells[methods[0]][s]) for s in sets)
    complete = [m for m in methods if all(len(cells[m][s]) >= n_seeds for s in sets)]
    if not n_seeds:
        return None
    return Comparison(
        protocol,
        complete,
        sets,
        {x: np.array([[seed_mean(cells[m][s], x) for s in sets] for m in complete]) for x in MEASURES},
        n_seeds,
        {
            m: {s: reasons for s in sets if (reasons := [r.failed for r in cells[m][s] if r.failed])}
            for m in complete
        },
        {m: float(np.median([r.seconds for s in sets for r in cells[m][s]])) for m in complete},
    )


def seed_mean(results: list[Result], measure: str) -> float:
    found = [value for r in results if (value := getattr(r, measure)) is not None]
    return float(np.mean(found)) if found else math.nan


def block(
    results: list[Result],
    sets: list[str],
    protocols: Iterable[str],
    folder: Path | None,
    methods: list[str],
) -> str:
    """What stands between the page's markers, the first method held against the others; diagrams go into the
    folder.
    """
    parts = []
    for protocol in protocols:
        parts += section(results, sets, protocol, folder, methods)
    if not parts:
        return "Nothing to report: our default is not complete."
    return "\n\n".join([versions(results, sets), *parts])


def versions(results: list[Result], sets: list[str]) -> str:
    """What the numbers hold for."""
    seeds = ", ".join(str(seed) for seed in sorted({result.seed for result in results}))
    packages = ", ".join(f"{name} {version(name)}" for name in ("pyod", "scikit-learn", "torch"))
    return f"{len(sets)} sets; seeds {seeds}; {packages}."


def section(
    results: list[Result], sets: list[str], protocol: str, folder: Path | None, methods: list[str]
) -> list[str]:
    """One protocol."""
    main = compare(results, protocol, methods, sets)
    if main is None:
        return []
    parts = [f"## {protocol.capitalize()}", summary(main)]
    if folder is not None and len(main.methods) > 2:
        name = f"quality-{protocol}.svg"
        draw(folder / name, panels(main), len(sets), OURS)
        parts += [friedman(main), f"![Mean ranks and critical difference, {protocol}]({name})"]
    parts += ["### Set by set", "AUROC / average precision, in %, means over the seeds.", by_set(main)]
    return parts


def panels(of: Comparison) -> dict[str, dict[str, float]]:
    measures = {"AUROC": "auroc", "Average precision": "average_precision"}
    return {
        f"{title}, {of.protocol}, {len(of.sets)} sets": dict(
            zip(of.methods, of.ranked(measure).mean(axis=1).tolist(), strict=True)
        )
        for title, measure in measures.items()
    }


def friedman(of: Comparison) -> str:
    auroc, precision = (friedman_p(of.ranked(m)) for m in ("auroc", "average_precision"))
    return (
        f"Friedman's test that no method is better than another: p = {auroc:.2g} (AUROC), {precision:.2g} (average "
        "precision). Methods under one bar are not told apart."
    )


def summary(of: Comparison) -> str:
    """A line a method, the best mean AUROC first."""
    lines = [HEAD]
    mean_ranks = {m: of.ranked(m).mean(axis=1) for m in MEASURES}
    for row in np.argsort(-np.nan_to_num(np.nanmean(of.values["auroc"], axis=1))):
        method = of.methods[row]
        cells = [plus_minus(of.values[m][row]) for m in MEASURES]
        cells += [ahead(of, row, m) for m in ("auroc", "average_precision")]
        cells += [f"{mean_ranks[m][row]:.2f}" for m in ("auroc", "average_precision")]
        cells += [f"{of.seconds[method]:.2f}", note(of, method)]
        label = f"**{method}**" if method == OURS else method
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plus_minus(values: Array) -> str:
    mean, error = mean_and_error(100 * values)
    return f"{mean:.1f} ± {error:.1f}"


def ahead(of: Comparison, row: int, measure: str) -> str:
    """By how much the first is ahead on the same sets, and the standard error of that over the sets."""
    if row == 0:
        return ""
    mean, error = mean_and_error(100 * (of.values[measure][0] - of.values[measure][row]))
    return f"{mean:+.1f} ± {error:.1f}".replace("-", "−")


def note(of: Comparison, method: str) -> str:
    """Where the method failed, and why."""
    failures = of.failures[method]
    if not failures:
        return ""
    where = (
        plain(name) + ("" if len(found) == of.n_seeds else f" ({len(found)} of {of.n_seeds} seeds)")
        for name, found in failures.items()
    )
    reasons = sorted({reason for found in failures.values() for reason in found})
    return f"failed on {', '.join(where)}: {'; '.join(reasons)}"


def by_set(of: Comparison) -> str:
    lines = ["| | " + " | ".join(of.methods) + " |", "|---" * (len(of.methods) + 1) + "|"]
    for column, name in enumerate(of.sets):
        pairs = [
            (of.values["auroc"][i, column], of.values["average_precision"][i, column])
            for i in range(len(of.methods))
        ]
        cells = ["failed" if math.isnan(a) else f"{100 * a:.0f} / {100 * p:.0f}" for a, p in pairs]
        lines.append(f"| {plain(name)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plain(name: str) -> str:
    """The set's name without its number."""
    return name.split("_", 1)[-1]


def write(page: Path, text: str, begin: str = BEGIN) -> None:
    """Replace what stands between the page's markers; a page that is not there yet gets nothing else."""
    before, _, rest = (page.read_text(encoding="utf-8") if page.exists() else "").partition(begin)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{END}{after}", encoding="utf-8")
