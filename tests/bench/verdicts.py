"""`make bench-verdicts`: average precision on held-out records with 5, 20, 50, 200 verdicts and with none, on
ADBench sets.

Two fifths of a set are learned without labels, three tenths reviewed, three tenths held out. The verdicts are
on the reviewed records that score highest, as a queue shows them; of some runs a tenth says the opposite of
the truth. ``--margin 20`` measures known_margin instead, which has to learn anew for every count.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from tests.bench.adbench import Array, generator, layout, names, records, rows, standardised
from tests.bench.ranking import mean_and_error
from tests.bench.report import write
from vae_core import VAE, Known, Recipe, fit, score
from vae_core.feedback import most_probable_weights

MOST_ROWS, FEWEST_ROWS, FEWEST_ANOMALIES = 8000, 1400, 5
COUNTS = (5, 20, 50, 200)
WRONG = (0.0, 0.1)
PAGE = Path("docs/reference/family.md")
WEIGHTS = "<!-- begin: written by make bench-verdicts -->"
MARGIN = "<!-- begin: written by make bench-verdicts, with a margin -->"


def main() -> None:
    """One line per set, then the means of the paired differences over sets."""
    parser = argparse.ArgumentParser(prog="make bench-verdicts", description=__doc__)
    parser.add_argument("--seeds", type=lambda text: [int(x) for x in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--spread", type=float, default=Recipe().weight_spread)
    parser.add_argument(
        "--margin", type=float, default=0.0, help="known_margin; 0: measure the weights alone"
    )
    parser.add_argument("--counts", type=lambda text: [int(x) for x in text.split(",")], default=COUNTS)
    parser.add_argument("--page", action="store_true", help=f"write the table to {PAGE}")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    if chosen.margin:
        text, begin = of_margin(chosen.seeds, chosen.counts, chosen.margin, chosen.spread), MARGIN
    else:
        text, begin = of_weights(chosen.seeds, chosen.counts, chosen.spread), WEIGHTS
    print(text)
    if chosen.page:
        write(PAGE, text, begin)


def of_weights(seeds: list[int], counts: list[int], spread: float) -> str:
    """What the weights add, of verdicts that are all right and of some that are not."""
    found = over_sets(seeds, lambda part: [part.precision(part.new), *part.gains(counts, spread)])
    without, ways = found[:, 0].mean(), ("all right", "a tenth of them wrong")
    head = f"Without verdicts {without:.3f}; {len(found)} sets, seeds {', '.join(map(str, seeds))}."
    return f"{head}\n\n{table(found[:, 1:], counts, ways)}"


def of_margin(seeds: list[int], counts: list[int], margin: float, spread: float) -> str:
    """What known_margin adds, alone and with the weights beside it, all verdicts right."""
    found = over_sets(seeds, lambda part: part.margins(counts, margin, spread))
    head = f"`known_margin: {margin:g}`; {len(found)} sets, seeds {', '.join(map(str, seeds))}."
    return f"{head}\n\n{table(found, counts, ('margin', 'margin and weights', 'weights'))}"


def over_sets(seeds: list[int], measure: Callable[[Reviewed], list[float]]) -> Array:
    """(n_sets, n_values) means over the seeds, of the sets that are large enough."""
    found = []
    for name in names():
        parts = [part for seed in seeds if (part := Reviewed.of(name, seed))]
        if parts:
            found.append(np.mean([measure(part) for part in parts], axis=0))
            print(f"{name:16} {' '.join(f'{value:+.3f}' for value in found[-1])}", flush=True)
    return np.array(found)


def table(gains: Array, counts: Sequence[int], ways: Sequence[str]) -> str:
    """As Markdown; gains (n_sets, counts · ways)."""
    lines = [f"| verdicts | {' | '.join(ways)} |", "|---" * (1 + len(ways)) + "|"]
    for count, row in zip(counts, np.split(gains, len(counts), axis=1), strict=True):
        lines.append(f"| {count} | {' | '.join(map(in_words, row.T))} |")
    return "\n".join(lines)


def in_words(gains: Array) -> str:
    """Mean gain ± standard error over sets, and that of the worst set."""
    mean, error = mean_and_error(gains)
    return f"{mean:+.3f} ± {error:.3f}, {gains.min():+.3f}".replace("-", "−")


@dataclass(frozen=True, eq=False)
class Reviewed:
    """A set in three parts, standardised by the first, and a model of that.

    found, new: terms (n, columns + 1) of the reviewed and the held-out records. top: the reviewed ones, the
    highest score first.
    """

    name: str
    seed: int
    learned: Array
    reviewed: Array
    held_out: Array
    odd: Array
    odd_held_out: Array
    found: torch.Tensor
    new: torch.Tensor
    top: Array

    @classmethod
    def of(cls, name: str, seed: int) -> Reviewed | None:
        """None where a set is too small."""
        x, odd = rows(name, seed, most=MOST_ROWS)
        order, n = generator(name, seed + 77).permutation(len(x)), len(x)
        learned, reviewed, held_out = np.split(order, [2 * n // 5, 7 * n // 10])
        if n < FEWEST_ROWS or min(odd[reviewed].sum(), odd[held_out].sum()) < FEWEST_ANOMALIES:
            return None
        x = standardised(x, x[learned])
        vae = fit(layout(x), records(x[learned]), seed=seed)
        found, new = (_terms(vae, x[part]) for part in (reviewed, held_out))
        top = found.sum(dim=1).argsort(descending=True).numpy()
        parts = x[learned], x[reviewed], x[held_out], odd[reviewed], odd[held_out]
        return cls(name, seed, *parts, found, new, top)

    def precision(self, terms: torch.Tensor, weights: torch.Tensor | None = None) -> float:
        """Average precision on the held-out records, of these terms of theirs."""
        scores = terms.sum(dim=1) if weights is None else terms @ weights
        return float(average_precision_score(self.odd_held_out, scores.numpy()))

    def weights(self, terms: torch.Tensor, said: Array, spread: float) -> torch.Tensor | None:
        """From what was said of the highest ones; None where all of it is alike."""
        if not said.any() or said.all():
            return None
        return most_probable_weights(terms[self.top[: len(said)]], torch.from_numpy(said), spread)

    def gains(self, counts: list[int], spread: float) -> list[float]:
        """Of the weights, for each count and share of wrong verdicts."""
        without, gains = self.precision(self.new), []
        for count in counts:
            said = self.odd[self.top[:count]]
            for wrong in WRONG:
                flipped = generator(self.name, self.seed + count).random(count) < wrong
                weights = self.weights(self.found, said ^ flipped[: len(said)], spread)
                gains.append(self.precision(self.new, weights) - without)
        return gains

    def margins(self, counts: list[int], margin: float, spread: float) -> list[float]:
        """Gains of the margin, of both, and of the weights, for each count."""
        without, gains = self.precision(self.new), []
        for count in counts:
            said = self.odd[self.top[:count]]
            x = self.reviewed[self.top[:count]]
            known = Known(*(records(x[of]) if of.any() else None for of in (said, ~said)))
            recipe = Recipe(known_margin=margin, weight_spread=0.0)
            vae = fit(layout(x), records(self.learned), recipe, seed=self.seed, known=known)
            found, new = _terms(vae, self.reviewed), _terms(vae, self.held_out)
            both = self.precision(new, self.weights(found, said, spread))
            beside = self.precision(self.new, self.weights(self.found, said, spread))
            gains += [self.precision(new) - without, both - without, beside - without]
        return gains


def _terms(vae: VAE, x: Array) -> torch.Tensor:
    found = score(vae, records(x))
    return torch.cat([found.column_terms, found.kl_divergence[:, None]], dim=1).double()


if __name__ == "__main__":
    main()
