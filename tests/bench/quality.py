"""Detection on the ADBench sets, ours beside rivals from the same splits: `make bench-quality`.

Two protocols. "contaminated": fit and score the same unlabelled rows. "clean": fit on half of the normal
rows, score the other half and all anomalies. Labels are read to split and to measure. Results are cached in
var/bench/quality.jsonl: a run that was interrupted goes on, and only methods that changed are computed again.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench import keel
from tests.bench.adbench import PROTOCOLS, names
from tests.bench.measure import CACHE, Result, Task, read, run, tasks
from tests.bench.methods import BASE, EVERY, METHODS, VARIANTS, sets_of
from tests.bench.report import KEPT_BACK, PAGE, block, write
from tests.bench.variants import PAGE as FAMILY
from tests.bench.variants import new_rows, renew, table

SEEDS = [0, 1, 2]


def main() -> None:
    chosen = arguments()
    sets = chosen.sets or names()
    if chosen.variants:
        wanted = of_variants(sets, chosen)
    else:
        wanted = list(dict.fromkeys(tasks(sets, chosen.protocols, chosen.seeds, chosen.only or METHODS)))
    cached = read(chosen.cache)
    todo = [t for t in wanted if t not in cached or (chosen.retry_failed and cached[t].failed)]
    if not chosen.cached:
        work_off(todo, chosen.cache, chosen.jobs, n_cached=len(wanted) - len(todo))
    report(chosen)


def of_variants(sets: list[str], chosen: argparse.Namespace) -> list[Task]:
    """Every variant on its sets with the first seed, and the default beside it."""
    where = {name: sets_of(EVERY[name], sets) for name in chosen.only or VARIANTS}
    together = [name for name in sets if any(name in some for some in where.values())]
    pairs = [(BASE, together), *sorted(where.items(), key=lambda pair: EVERY[pair[0]].cost)]
    found = (tasks(some, chosen.protocols, chosen.seeds[:1], [name]) for name, some in pairs)
    return list(dict.fromkeys(task for part in found for task in part))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=listed, help=f"methods, of: {', '.join(EVERY)}")
    parser.add_argument(
        "--variants",
        action="store_true",
        help="our settings that are not the default, and DTE-C, with the first seed, most on every second set; their table "
        "is in docs/reference/family.md",
    )
    parser.add_argument("--sets", type=listed, help="names of files, without .npz")
    parser.add_argument("--kept-back", action="store_true", help="the sets that no setting was chosen on")
    parser.add_argument("--protocols", type=listed, default=list(PROTOCOLS))
    parser.add_argument("--seeds", type=lambda text: [int(x) for x in text.split(",")], default=SEEDS)
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--retry-failed", action="store_true")
    parser.add_argument("--cached", action="store_true", help="report what is cached, compute nothing")
    parser.add_argument(
        "--page", type=Path, help="write tables and diagrams there; with all sets and seeds: to docs"
    )
    parser.add_argument("--cache", type=Path, default=CACHE)
    chosen = parser.parse_args()
    if chosen.kept_back:
        chosen.sets, chosen.page = keel.names(), chosen.page or KEPT_BACK
    all_sets = keel.names() if chosen.kept_back else names()
    for option, known in (("only", EVERY), ("sets", all_sets), ("protocols", PROTOCOLS)):
        if unknown := sorted(set(getattr(chosen, option) or ()) - set(known)):
            parser.error(f"--{option}: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    return chosen


def listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def work_off(todo: list[Task], cache: Path, jobs: int, *, n_cached: int) -> None:
    """Do what is not cached, with a bar on stderr (a line for each result where that is no terminal)."""
    console = Console(stderr=True)
    console.print(f"{n_cached} results cached in {cache}, {len(todo)} to compute")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("", total=len(todo))
        for number, result in enumerate(run(todo, cache, jobs), start=1):
            progress.update(bar, advance=1, description=f"{result.method}, {result.set_name}")
            if progress.disable or result.failed:
                progress.console.print(f"{number}/{len(todo)} {described(result)}", highlight=False)


def report(chosen: argparse.Namespace) -> None:
    """Tables of all that is cached for the chosen sets, protocols and seeds, whatever was computed now."""
    sets = chosen.sets or names()
    whole = not chosen.sets and chosen.seeds == SEEDS and set(chosen.only or ()) <= set(METHODS)
    known, cached = tasks(sets, chosen.protocols, chosen.seeds, EVERY), read(chosen.cache)
    results = [replace(cached[task], method=task.method) for task in known if task in cached]
    if chosen.variants:
        rows = new_rows(results, sets)
        print(table(rows))
        if chosen.seeds[0] == SEEDS[0] and not chosen.sets and set(chosen.protocols) == set(PROTOCOLS):
            renew(FAMILY, rows)
            Console(stderr=True).print(f"written to {FAMILY}")
        return
    page = chosen.page or (PAGE if whole and set(chosen.protocols) == set(PROTOCOLS) else None)
    drawn = page.parent if page and not chosen.kept_back else None
    shown = [*METHODS, *(name for name in chosen.only or () if name not in METHODS)]
    text = block(results, sets, chosen.protocols, drawn, shown)
    print(text)
    if page:
        write(page, text)
        Console(stderr=True).print(f"written to {page}")


def described(result: Result) -> str:
    where = f"{result.method}, {result.set_name}, {result.protocol}, seed {result.seed}"
    if result.failed:
        return f"{where}: failed: {result.failed}"
    return f"{where}: AUROC {result.auroc:.3f}, AP {result.average_precision:.3f}, {result.seconds:.1f} s"


if __name__ == "__main__":
    main()
