"""How unusual each record is, and in which columns.

Belongs here: the score and its parts. Does not: what it takes from the training records (summary.py),
thresholds and p-values (the caller's), or the costlier reasons for flagged records (attribution.py).

Scoring is a pure function of model and record: the same to the bit whatever else is scored beside it
(slices.py). On a GPU, whatever the slice, it is the same to ROUNDING.
"""

# M members, B records of a slice, N numeric columns, J columns

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vae_core.device import log_peak
from vae_core.fused import HIGHEST_RATIO, HIGHEST_TERM, FusedScorer, SliceScores
from vae_core.model import VAE
from vae_core.noise import Gaussian, sum_of_logs
from vae_core.posteriors import Posterior
from vae_core.records import Records
from vae_core.recurring import soften
from vae_core.slices import filled_up, fitting_slice, side_by_side

ROUNDING = (
    1e-4  # largest difference of a score, relative to its absolute value or to 1 nat, whichever is more
)


@dataclass(frozen=True, eq=False)
class Expected:
    """What the model expects of each cell: a mixture over its members.

    mean, std: (n_records, n_numeric) in standardised units.
    code, probability: (n_records, n_categorical) most likely category given the other columns, and its
        probability.
    """

    mean: Tensor
    std: Tensor
    code: Tensor
    probability: Tensor


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of records, in nats.

    ``anomaly_score = column_terms.sum(1) + w · kl_divergence`` but for rounding, w the KL's weight, 1 unless
    verdicts taught another (feedback.py).

    anomaly_score: (n_records,) higher is more anomalous.
    reconstruction: (n_records,) -log p(x|z) at the posterior mean, mean over members.
    kl_divergence: (n_records,) KL(q(z|x) || p(z)), or a bound above it (priors.py), mean over members; never
        negative. Where training held the latents to the prior by a distance or a discriminator, it is
        ½‖mean‖² of q(z|x). Such training says nothing of a single posterior's spread, which shrinks towards
        nothing: −log σ in the KL would be large, arbitrary and no sign of an anomaly. It does make the means
        of normal records look like draws of N(0, I), of which ½‖mean‖² is −log p(z) above its lowest.
    column_terms: (n_records, n_columns) how much more surprising a cell is than that column's cells were on
        average in training, mean over members, times the column's weight; 0 where the cell is missing. A
        number's surprise is half its -log p(x|z) and half T = 2 log(1 + e²/(3s)), with e its distance from
        the decoder's mean and s the column's robust squared scale: up to a constant, T is -log of a Student t
        density with 3 degrees of freedom. Where the column's noise model is not Gaussian, it is -log p(x|z)
        alone. Both get the linear model's part, weighted (linear.py). A category's is -log p(x_c | the record
        without x_c), the pseudo-likelihood's term (Besag 1975): whether it fits the others.
    """

    anomaly_score: Tensor
    reconstruction: Tensor
    kl_divergence: Tensor
    column_terms: Tensor


class Scorer:
    """Scores records by one model as it is now.

    Keep it where many parts of a table are scored: it holds what depends on the model alone, and memory for
    each thread that calls it; several may call at once.
    """

    def __init__(self, vae: VAE, *, largest: int | None = None) -> None:
        """largest: most records in a slice on a CPU; fewer cost less where there are few at a time."""
        self.vae, self.fused = vae, FusedScorer.of(vae)
        self.size = fitting_slice(vae)
        if largest is not None and vae.device.type == "cpu":
            self.size = min(self.size, largest)

    def __call__(self, records: Records, *, threads: int | None = None, column_terms: bool = True) -> Scores:
        """Score records, on their device.

        A record's scores depend neither on the others nor on the number of threads.
        threads: how many cores; None for as many as torch is allowed.
        column_terms: False for none, (n_records, 0), where only the scores are needed.
        """
        self.vae.layout.check(records)
        n, device = len(records), self.vae.device
        returned = device.type == "cuda" and not records.numeric.is_cuda
        new = partial(torch.empty, device=records.device, pin_memory=returned)
        terms_JB = new(len(self.vae.layout.columns) if column_terms else 0, n)
        scores = Scores(new(n), new(n), new(n), terms_JB.T)

        def keep(found: SliceScores, rows: slice) -> None:
            n_rows = rows.stop - rows.start
            scores.anomaly_score[rows].copy_(found.anomaly_score[:n_rows], non_blocking=True)
            scores.reconstruction[rows].copy_(found.reconstruction[:n_rows], non_blocking=True)
            scores.kl_divergence[rows].copy_(found.kl_divergence[:n_rows], non_blocking=True)
            terms_JB[:, rows] = found.column_terms[: len(terms_JB), :n_rows]

        def work(rows: slice, size: int) -> None:
            if self.fused is None:
                keep(_scored(self.vae, filled_up(records[rows], size).sent(device)), rows)
            else:
                keep(self.fused(records[rows].sent(device), size), rows)

        self.size = side_by_side(self.vae, n, work, self.size, threads=threads)
        log_peak(device, logging.DEBUG)
        return scores

    def expect(self, records: Records) -> Expected:
        """Return what the model expects of each cell, at the posterior mean of its record."""
        self.vae.layout.check(records)
        n, layout, new = len(records), self.vae.layout, records.numeric.new_empty
        expected = Expected(
            mean=new(len(layout.numeric), n).T,
            std=new(len(layout.numeric), n).T,
            code=torch.empty_like(records.categorical),
            probability=new(n, len(layout.categorical)),
        )

        def work(rows: slice, size: int) -> None:
            if self.fused is None:
                found = _expected(self.vae, filled_up(records[rows], size).sent(self.vae.device))
            else:
                found = Expected(*(x.T for x in self.fused.expect(records[rows].sent(self.vae.device), size)))
            for name in ("mean", "std", "code", "probability"):
                getattr(expected, name)[rows] = getattr(found, name)[: rows.stop - rows.start]

        self.size = side_by_side(self.vae, n, work, self.size)
        return expected


def score(vae: VAE, records: Records) -> Scores:
    """Score records, on their device, see ``Scorer``."""
    return Scorer(vae)(records)


def expect(vae: VAE, records: Records) -> Expected:
    """Return what the model expects of each cell, see ``Scorer.expect``."""
    return Scorer(vae).expect(records)


def _scored(vae: VAE, part: Records) -> SliceScores:
    terms = cell_terms(vae, part)
    columns = terms.columns - vae.typical
    soften(columns.T, part.numeric.T, vae.recurring.by_column())
    column_terms = columns.mul_(part.observed).mul_(vae.learned * vae.weights[:-1])
    score_B = column_terms.sum(dim=1) + vae.weights[-1] * terms.kl_divergence
    return SliceScores(score_B, terms.reconstruction, terms.kl_divergence, column_terms.T)


@dataclass(frozen=True, eq=False)
class Terms:
    """A slice's terms, means over members, in nats.

    columns: (B, J), not yet relative to training. reconstruction, kl_divergence: (B,).
    """

    columns: Tensor
    reconstruction: Tensor
    kl_divergence: Tensor


def cell_terms(vae: VAE, records: Records) -> Terms:
    """Return what `Scores.column_terms` are made of."""
    posterior = vae.encode(records)
    likelihood = vae.decode(posterior.mean, records)
    from_others = vae.decode_categories_from_the_others(records)
    squared_MBN = (records.values - likelihood.numeric.mean).square_()
    if isinstance(likelihood.numeric, Gaussian):
        numeric_BN = likelihood.numeric.mean_surprise(squared_MBN)
    else:
        numeric_BN = -likelihood.numeric.log_prob(records.values).mean(dim=0)
    # where this clips, the term's other half is larger by more than float32 has digits
    ratios_MBN = squared_MBN.mul_(1 / (3 * vae.scale)).add_(1).clamp_(max=HIGHEST_RATIO)
    student_BN = sum_of_logs(ratios_MBN, 2).div_(len(ratios_MBN))  # half of T
    share = vae.noise.share_in_terms
    parts = [share * numeric_BN + 2 * (1 - share) * student_BN]
    if vae.linear is not None:
        parts[0] += vae.linear.weight * vae.linear.surprise(records)
    whole = [numeric_BN]
    if from_others.logits:
        parts.append(-from_others.log_prob(records.categorical).mean(dim=0))
        whole.append(-likelihood.categorical.log_prob(records.categorical).mean(dim=0))
    return Terms(
        columns=torch.cat(parts, dim=1).clamp_(-HIGHEST_TERM, HIGHEST_TERM),
        reconstruction=(torch.cat(whole, dim=1) * records.observed).sum(dim=1).clamp_(max=HIGHEST_TERM),
        kl_divergence=latent_terms(vae, posterior).mean(dim=0).clamp_(max=HIGHEST_TERM),
    )


def latent_terms(vae: VAE, posterior: Posterior) -> Tensor:
    """Return how unusual latents are, (..., n_records) nats, at least 0: see ``Scores.kl_divergence``."""
    if vae.recipe.regulariser == "kl":
        return vae.prior.kl(posterior)
    return 0.5 * posterior.mean.square().sum(dim=-1)


def _expected(vae: VAE, records: Records) -> Expected:
    numeric = vae.decode(vae.encode(records).mean, records).numeric
    categorical = vae.decode_categories_from_the_others(records)
    mean = numeric.mean.mean(dim=0)
    variance = (numeric.mean - mean).square_().mean(dim=0) + numeric.variance.mean(dim=0)
    likeliest = [
        categorical.probabilities(column).mean(dim=0).max(dim=-1) for column in range(len(categorical.logits))
    ]
    none = mean.new_empty(len(mean), 0)
    return Expected(
        mean,
        variance.sqrt_(),
        torch.stack([m.indices for m in likeliest], dim=1) if likeliest else none.long(),
        torch.stack([m.values for m in likeliest], dim=1) if likeliest else none,
    )
