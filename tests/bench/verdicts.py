"""`make bench-verdicts`: average precision on held-out records with 5, 20, 50, 200 verdicts and with none, on
ADBench sets.

Two fifths of a set are learned without labels, three tenths reviewed, three tenths held out. The verdicts are
on the reviewed records that score highest, as a queue shows them; of some runs a tenth says the opposite of
the truth. ``--margin 20`` measures known_margin instead, which has to learn anew for every count.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from tests.bench.adbench import Array, generator, layout, names, records, rows, standardised
from tests.bench.ranking import mean_and_error
from vae_core import VAE, Known, Recipe, fit, score
from vae_core.feedback import most_probable_weights

MOST_ROWS, FEWEST_ROWS, FEWEST_ANOMALIES = 8000, 1400, 5
COUNTS = (5, 20, 50, 200)
WRONG = (0.0, 0.1)


def main() -> None:
    """One line per set and seed, then the means of the paired differences over sets."""
    parser = argparse.ArgumentParser(prog="make bench-verdicts", description=__doc__)
    parser.add_argument("--seeds", type=lambda text: [int(x) for x in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--spread", type=float, default=Recipe().weight_spread)
    parser.add_argument(
        "--margin", type=float, default=0.0, help="known_margin; 0: measure the weights alone"
    )
    parser.add_argument("--counts", type=lambda text: [int(x) for x in text.split(",")], default=COUNTS)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    if chosen.margin:
        of_margin(chosen.seeds, chosen.counts, chosen.margin, chosen.spread)
        return
    found = []
    for name in names():
        seeds = [row for seed in chosen.seeds for row in _gains(name, seed, chosen.spread)]
        if seeds:
            found.append(np.mean(seeds, axis=0))
            print(f"{name:16} {' '.join(f'{value:+.3f}' for value in found[-1])}", flush=True)
    print(
        f"without verdicts: average precision {np.mean([row[0] for row in found]):.3f} on {len(found)} sets"
    )
    settings = [(n, wrong) for n in COUNTS for wrong in WRONG]
    for i, (n, wrong) in enumerate(settings, start=1):
        gains = np.array([row[i] for row in found])
        mean, error = mean_and_error(gains)
        print(f"{n:4} verdicts, {wrong:.0%} wrong: {mean:+.3f} ± {error:.3f}, worst set {gains.min():+.3f}")


def of_margin(seeds: list[int], counts: list[int], margin: float, spread: float) -> None:
    """What known_margin adds, alone and with the weights beside it, all verdicts right."""
    found = []
    for name in names():
        parts = [part for seed in seeds if (part := Reviewed.of(name, seed))]
        if parts:
            found.append(np.mean([part.margins(counts, margin, spread) for part in parts], axis=0))
            print(f"{name:16} {' '.join(f'{value:+.3f}' for value in found[-1])}", flush=True)
    print(f"{len(found)} sets, known_margin {margin:g}")
    labels = [f"{n:4} verdicts, {way}" for n in counts for way in ("margin", "margin and weights", "weights")]
    for label, gains in zip(labels, np.array(found).T, strict=True):
        mean, error = mean_and_error(gains)
        print(f"{label}: {mean:+.3f} ± {error:.3f}, worst set {gains.min():+.3f}")


@dataclass(frozen=True, eq=False)
class Reviewed:
    """A set in three parts, standardised by the first, and a model of that.

    found, new: terms (n, columns + 1) of the reviewed and the held-out records. top: the reviewed ones, the
    highest score first.
    """

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
        return cls(seed, x[learned], x[reviewed], x[held_out], odd[reviewed], odd[held_out], found, new, top)

    def precision(self, terms: torch.Tensor, weights: torch.Tensor | None = None) -> float:
        """Average precision on the held-out records, of these terms of theirs."""
        scores = terms.sum(dim=1) if weights is None else terms @ weights
        return float(average_precision_score(self.odd_held_out, scores.numpy()))

    def weights(self, terms: torch.Tensor, said: Array, spread: float) -> torch.Tensor | None:
        """From what was said of the highest ones; None where all of it is alike."""
        if not said.any() or said.all():
            return None
        return most_probable_weights(terms[self.top[: len(said)]], torch.from_numpy(said), spread)

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


def _gains(name: str, seed: int, spread: float) -> Iterator[list[float]]:
    """Average precision without verdicts and what each setting adds; nothing where a set is too small."""
    part = Reviewed.of(name, seed)
    if part is None:
        return
    without = part.precision(part.new)
    row = [without]
    for count in COUNTS:
        for wrong in WRONG:
            flipped = generator(name, seed + count).random(count) < wrong
            said = part.odd[part.top[:count]] ^ flipped[: len(part.top[:count])]
            row.append(part.precision(part.new, part.weights(part.found, said, spread)) - without)
    yield row


def _terms(vae: VAE, x: Array) -> torch.Tensor:
    found = score(vae, records(x))
    return torch.cat([found.column_terms, found.kl_divergence[:, None]], dim=1).double()


if __name__ == "__main__":
    main()
