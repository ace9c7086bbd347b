"""How close to the machine: `make bench-speed`.

Every line measures a floor and our own work in turn, in one run, so that a slow machine slows both, and
states their ratio with its spread. Each measurement runs in a process of its own. `ARGS="--only
score,memory"` chooses lines, `--records 1000000` a size; the whole default run takes about twenty minutes on
two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

PAGE, PLOT = Path("docs/reference/speed.md"), Path("docs/reference/speed.svg")
BEGIN, END = "<!-- begin: written by make bench-speed -->", "<!-- end -->"
GREEN, RED = "#2f7d4f", "#b23b3b"
FAR = 100.0  # shares beyond it are drawn as it


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        ratios: one for each time it was measured; ``reach`` is compared with their median.
        at_least: whether more is better.
    """

    work: str
    floor: str
    ours: str
    ratios: list[float]
    reach: float
    at_least: bool
    unit: str = "×"
    note: str = ""

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def is_green(self) -> bool:
        return bool(self.ratio >= self.reach if self.at_least else self.ratio <= self.reach)

    def share(self, value: float) -> float:
        """Of what is to be reached; without bound for less than nothing, which noise makes of a
        difference.
        """
        if self.at_least:
            return value / self.reach
        return self.reach / value if value > 0 else float("inf")

    def shown(self, value: float) -> str:
        return f"{value:.0%}" if self.unit == "%" else f"{value:.3g} {self.unit}"


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    records: int
    repeats: int
    scratch: Path


def child(module: str, *arguments: object, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """What a module of this bench prints last, as JSON, run in a process of its own."""
    command = [sys.executable, "-m", f"tests.bench.{module}", *map(str, arguments)]
    done = subprocess.run(
        command, env=os.environ | (environment or {}), stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def interleaved(works: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """What each work returns, in turn, so often."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            found[name].append(work())
    return found


def ratios(ours: Iterable[float], floor: Iterable[float]) -> list[float]:
    """Of one round to the same round's."""
    return [a / b for a, b in zip(ours, floor, strict=True)]


def report(lines: list[Line], seconds: float) -> str:
    """The table as Markdown."""
    head = "| work | floor, same run | ours | ratio | spread | reach | |\n|---|---|---|---|---|---|---|"
    rows = [
        f"| {x.work} | {x.floor} | {x.ours} | **{x.shown(x.ratio)}** | {x.shown(min(x.ratios))} to {x.shown(max(x.ratios))} "
        f"| {'≥' if x.at_least else '≤'} {x.shown(x.reach)} | {'green' if x.is_green else '**red**'}{x.note and '; ' + x.note} |"
        for x in lines
    ]
    import torch

    where = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, torch {torch.__version__}"
    load = f"load {os.getloadavg()[2]:.1f} over the last quarter of an hour, {seconds / 60:.0f} minutes"
    return "\n".join([f"{where}; {load}.", "", head, *rows])


def draw(lines: list[Line]) -> None:
    """How far each line is on its way: 1 is what it should reach."""
    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "vaewatch"
    figure, axes = plt.subplots(figsize=(9, 0.36 * len(lines) + 1.1), layout="constrained")
    for y, line in enumerate(reversed(lines)):
        parts = sorted(min(FAR, line.share(x)) for x in line.ratios)
        axes.barh(y, median(parts), color=GREEN if line.is_green else RED, height=0.6)
        axes.plot(
            parts[:: max(1, len(parts) - 1)], [y] * len(parts[:: max(1, len(parts) - 1)]), color="black"
        )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(yticks=range(len(lines)), yticklabels=[x.work for x in reversed(lines)], xscale="log")
    axes.set_xlabel("share of what is to be reached (bar: median, line: spread)")
    figure.savefig(PLOT, metadata={"Date": None})


def write(lines: list[Line], seconds: float) -> None:
    """Put table and plot into the docs."""
    draw(lines)
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{report(lines, seconds)}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Measure, print, and write the page when everything was measured."""
    from tests.bench import speed_scoring, speed_start, speed_training, speed_window

    rows = speed_scoring.ROWS | speed_training.ROWS | speed_window.ROWS | speed_start.ROWS
    parser = argparse.ArgumentParser(prog="make bench-speed", description=__doc__)
    parser.add_argument("--only", default="", help=f"of {', '.join(rows)}")
    parser.add_argument("--records", type=int, default=10_000_000, help="of the large batch")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    chosen = [name for name in given.only.split(",") if name] or list(rows)
    lines: list[Line] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(
        prefix="vaewatch-speed-", dir=os.environ.get("VAEWATCH_SCRATCH")
    ) as scratch:
        plan = Plan(given.records, given.repeats, Path(scratch))
        for name in chosen:
            for line in rows[name](plan):
                lines.append(line)
                print(
                    json.dumps(asdict(line) | {"green": line.is_green}, ensure_ascii=False, default=float),
                    flush=True,
                )
    seconds = time.monotonic() - began
    print(report(lines, seconds))
    if not given.only:
        write(lines, seconds)


if __name__ == "__main__":
    main()
