"""`make bench-verdicts`: average precision on held-out records with 5, 20, 50, 200 verdicts and with none, on
ADBench sets.

Two fifths of a set are learned without labels, three tenths reviewed, three tenths held out. The verdicts are
on the reviewed records that score highest, as a queue shows them; of some runs a tenth says the opposite of
the truth.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from tests.bench.adbench import Array, generator, layout, names, records, rows, standardised
from tests.bench.ranking import mean_and_error
from vae_core import VAE, Recipe, fit, score
from vae_core.feedback import most_probable_weights

MOST_ROWS, FEWEST_ROWS, FEWEST_ANOMALIES = 8000, 1400, 5
COUNTS = (5, 20, 50, 200)
WRONG = (0.0, 0.1)


def main() -> None:
    """One line per set and seed, then the means of the paired differences over sets."""
    parser = argparse.ArgumentParser(prog="make bench-verdicts", description=__doc__)
    parser.add_argument("--seeds", type=lambda text: [int(x) for x in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--spread", type=float, default=Recipe().weight_spread)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
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


def _gains(name: str, seed: int, spread: float) -> Iterator[list[float]]:
    """Average precision without verdicts and what each setting adds; nothing where a set is too small."""
    x, odd = rows(name, seed, most=MOST_ROWS)
    order, n = generator(name, seed + 77).permutation(len(x)), len(x)
    learned, reviewed, held_out = np.split(order, [2 * n // 5, 7 * n // 10])
    if n < FEWEST_ROWS or min(odd[reviewed].sum(), odd[held_out].sum()) < FEWEST_ANOMALIES:
        return
    x = standardised(x, x[learned])
    vae = fit(layout(x), records(x[learned]), seed=seed)
    found, new = (_terms(vae, x[part]) for part in (reviewed, held_out))
    top = found.sum(dim=1).argsort(descending=True).numpy()

    def precision(weights: torch.Tensor) -> float:
        return float(average_precision_score(odd[held_out], (new @ weights).numpy()))

    without = precision(torch.ones(new.shape[1]).double())
    row = [without]
    for count in COUNTS:
        for wrong in WRONG:
            flipped = generator(name, seed + count).random(count) < wrong
            said = torch.from_numpy(odd[reviewed][top[:count]] ^ flipped[: len(top[:count])])
            is_told = bool(said.any()) and not bool(said.all())
            weights = most_probable_weights(found[top[:count]], said, spread) if is_told else None
            row.append(precision(weights) - without if weights is not None else 0.0)
    yield row


def _terms(vae: VAE, x: Array) -> torch.Tensor:
    found = score(vae, records(x))
    return torch.cat([found.column_terms, found.kl_divergence[:, None]], dim=1).double()


if __name__ == "__main__":
    main()
