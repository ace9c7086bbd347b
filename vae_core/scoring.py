"""How unusual each record is, and in which columns.

Belongs here: the score, its parts, and what it takes from the training records. Does not: thresholds and
p-values (the caller's), or the costlier reasons for flagged records (attribution.py).

Scoring is a pure function of model and record: records go through the networks in slices of one fixed size,
each computed on one thread, so that a score is the same to the bit whatever else is scored beside it. On a
GPU slices are as large as its memory allows: scores are the same to ROUNDING, whatever the device and the
slice.
"""

# M members, B records of a slice, N numeric columns, J columns

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_core.device import in_halves, log_peak, room
from vae_core.fused import HIGHEST_RATIO, HIGHEST_TERM, FusedScorer, SliceScores
from vae_core.likelihoods import ColumnLikelihood
from vae_core.model import VAE
from vae_core.noise import Gaussian, sum_of_logs
from vae_core.posteriors import Posterior
from vae_core.records import Records
from vae_core.threads import one_thread_per_kernel

ROUNDING = (
    1e-4  # bound of a score's difference, as a share of its distance from 0 or of 1 nat, whichever is more
)
LARGEST_SLICE = 3072  # records that go through the networks together
_SMALLEST_SLICE = 48
_SEARCHED_SLICE = 64  # the same where their latents are searched for
_LARGEST_ON_GPU = 512 * LARGEST_SLICE
_TENSORS = 16  # of a slice's widest one, which together take as much memory as all that are held at once
_SLICE_CELLS = 2**20  # of a slice's largest tensor
_NORMAL_MEDIAN = 0.4549364  # median of the square of a standard normal
_LOWEST_SCALE = 1e-3
_LEAST_TRIM = 0.01
_MOST_SUMMARISED = 65_536  # training records that the summary looks at
_MOST_CELLS = 2**24


@dataclass(frozen=True, eq=False)
class Expected:
    """What the model expects of each cell: a mixture over its members.

    mean, std: (n_records, n_numeric) in standardised units.
    code, probability: (n_records, n_categorical) most likely category given the other columns, and how likely
        it is.
    """

    mean: Tensor
    std: Tensor
    code: Tensor
    probability: Tensor


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of records, in nats; ``anomaly_score = column_terms.sum(1) + w · kl_divergence`` but for
    rounding, w the KL's weight, 1 unless verdicts taught another (feedback.py).

    anomaly_score: (n_records,) higher is more anomalous.
    reconstruction: (n_records,) -log p(x|z) at the posterior mean, mean over members.
    kl_divergence: (n_records,) KL(q(z|x) || p(z)), or a bound above it (priors.py), mean over members; never
        negative. Where training held the latents to the prior by a distance or a discriminator, ½‖mean‖² of
        q(z|x): such training says nothing of a single posterior's spread, which shrinks towards nothing, so
        that −log σ in the KL would be large, arbitrary and no sign of an anomaly, but makes the means of
        normal records look like draws of N(0, I), of which ½‖mean‖² is −log p(z) above its lowest.
    column_terms: (n_records, n_columns) how much more surprising a cell is than that column's cells were on
        average in training, mean over members, times the column's weight; 0 where the cell is missing. A
        number's surprise is half its -log p(x|z) and half T = 2 log(1 + e²/(3s)), with e its distance from
        the decoder's mean and s the column's robust squared scale: up to a constant, -log of a Student t
        density with 3 degrees of freedom; where the column's noise model is not Gaussian it is -log p(x|z)
        alone. To both the linear model's part is added, weighted (linear.py). A category's is -log p(x_c |
        the record without x_c), the pseudo-likelihood's term (Besag 1975): whether it fits the others.
    """

    anomaly_score: Tensor
    reconstruction: Tensor
    kl_divergence: Tensor
    column_terms: Tensor


class Scorer:
    """Scores records by one model as it is now. Keep it where many parts of a table are scored: it holds what
    depends on the model alone, and memory for each thread that calls it; several may at once.
    """

    def __init__(self, vae: VAE) -> None:
        self.vae, self.size, self.fused = vae, fitting_slice(vae), FusedScorer.of(vae)

    def __call__(self, records: Records, *, threads: int | None = None, column_terms: bool = True) -> Scores:
        """Score records where they lie. A record's scores depend neither on the others nor on the number of
        threads.

        threads: how many cores; None for as many as torch is allowed.
        column_terms: False for none, (n_records, 0): who keeps scores alone need not have them written.
        """
        self.vae.layout.check(records)
        n, new = len(records), records.numeric.new_empty
        terms_JB = new(len(self.vae.layout.columns) if column_terms else 0, n)
        scores = Scores(new(n), new(n), new(n), terms_JB.T)

        def keep(found: SliceScores, rows: slice) -> None:
            n_rows = rows.stop - rows.start
            scores.anomaly_score[rows] = found.anomaly_score[:n_rows]
            scores.reconstruction[rows] = found.reconstruction[:n_rows]
            scores.kl_divergence[rows] = found.kl_divergence[:n_rows]
            terms_JB[:, rows] = found.column_terms[: len(terms_JB), :n_rows]

        def work(rows: slice, size: int) -> None:
            if self.fused is None:
                keep(_scored(self.vae, filled_up(records[rows], size).to(self.vae.device)), rows)
            else:
                keep(self.fused(records.numeric[rows], records.context[rows], size), rows)

        self.size = _side_by_side(self.vae, n, work, self.size, threads=threads)
        log_peak(self.vae.device, logging.DEBUG)
        return scores


def score(vae: VAE, records: Records) -> Scores:
    """Score records where they lie, see ``Scorer``."""
    return Scorer(vae)(records)


def _scored(vae: VAE, part: Records) -> SliceScores:
    terms = _terms(vae, part)
    column_terms = (terms.columns - vae.typical).mul_(part.observed).mul_(vae.learned * vae.weights[:-1])
    score_B = column_terms.sum(dim=1) + vae.weights[-1] * terms.kl_divergence
    return SliceScores(score_B, terms.reconstruction, terms.kl_divergence, column_terms.T)


def expect(vae: VAE, records: Records) -> Expected:
    """What the model expects of each cell, at the posterior mean of its record."""
    vae.layout.check(records)
    n, layout, new = len(records), vae.layout, records.numeric.new_empty
    expected = Expected(
        mean=new(len(layout.numeric), n).T,
        std=new(len(layout.numeric), n).T,
        code=torch.empty_like(records.categorical),
        probability=new(n, len(layout.categorical)),
    )

    def write(part: Records, rows: slice) -> None:
        found = _expected(
            ColumnLikelihood(
                vae.decode(vae.encode(part).mean, part).numeric, vae.decode_categories_from_the_others(part)
            )
        )
        for name in ("mean", "std", "code", "probability"):
            getattr(expected, name)[rows] = getattr(found, name)[: rows.stop - rows.start]

    fused = FusedScorer.of(vae)
    if fused is None:
        in_slices(vae, records, write)
        return expected

    def keep(rows: slice, size: int) -> None:
        mean_NB, std_NB = fused.expect(records.numeric[rows], records.context[rows], size)
        expected.mean[rows] = mean_NB.T[: rows.stop - rows.start]
        expected.std[rows] = std_NB.T[: rows.stop - rows.start]

    _side_by_side(vae, n, keep, fitting_slice(vae))
    return expected


def slice_size(vae: VAE) -> int:
    """How many records go through the networks together: three times a power of two, by the model alone.

    Kernels work on blocks of 8 to 96 records; such a number leaves none of them a remainder, and no two
    columns of a tensor compete for one place in the cache, as those of a power of two do.
    """
    if vae.recipe.encoder == "none":
        return _SEARCHED_SLICE
    return _largest(min(LARGEST_SLICE, _SLICE_CELLS // _widest(vae)))


def fitting_slice(vae: VAE) -> int:
    """How many records go through the networks together on the model's device: on a CPU `slice_size`, on a
    GPU as many as there is room for.
    """
    if vae.device.type != "cuda":
        return slice_size(vae)
    return _largest(min(_LARGEST_ON_GPU, room(vae.device, 4 * _TENSORS * _widest(vae))))


def _largest(bound: int) -> int:
    size = _SMALLEST_SLICE
    while 2 * size <= bound:
        size *= 2
    return size


def _widest(vae: VAE) -> int:
    """Cells of a slice's largest tensor for each record."""
    return vae.recipe.n_members * max(vae.recipe.width, 2 * len(vae.layout.numeric) + sum(vae.layout.n_codes))


def in_slices(vae: VAE, records: Records, work: Callable[[Records, slice], None]) -> None:
    """Call ``work`` with each slice of the records, filled up to one size on the model's device, and its
    place.

    Every kernel thus sees one shape and aligned memory. On a CPU, slices run beside each other on as many
    threads as torch was allowed.
    """

    def run(rows: slice, size: int) -> None:
        work(filled_up(records[rows], size).to(vae.device), rows)

    _side_by_side(vae, len(records), run, fitting_slice(vae))


def _side_by_side(
    vae: VAE, n_records: int, work: Callable[[slice, int], None], size: int, *, threads: int | None = None
) -> int:
    """Call ``work`` with the place of each slice and the size it is to be filled up to. Returns the size that
    memory sufficed for.
    """
    starts = range(0, n_records, size)
    run = torch.inference_mode()(work)

    def run_from(start: int) -> None:
        run(slice(start, min(start + size, n_records)), size)

    with one_thread_per_kernel() as n_allowed:
        n_threads = min(threads or n_allowed, len(starts))
        if vae.device.type != "cpu":  # nothing is filled up: on a GPU few records cost what they need
            wanted = min(size, n_records)
            sufficient = in_halves(n_records, wanted, run)
            return size if sufficient == wanted else sufficient
        if n_threads < 2:
            return in_halves(n_records, size, run)
        with ThreadPoolExecutor(n_threads) as pool:
            for _ in pool.map(run_from, starts):  # raises what a slice raised
                pass
    return size


def filled_up(part: Records, size: int) -> Records:
    """The records and, below them, as many zeros as make ``size`` rows."""
    return Records(*(_filled(x, size) for x in (part.numeric, part.categorical, part.context)))


def _filled(part: Tensor, n_rows: int) -> Tensor:
    """A copy of (n_rows, n_columns), zeros below the given rows, each column contiguous
    (layers.even_product).
    """
    filled = part.new_empty(part.shape[1], n_rows).T
    filled[: len(part)] = part
    filled[len(part) :] = 0
    return filled


@dataclass(frozen=True, eq=False)
class _Terms:
    """Means over members, in nats, of a slice: columns (B, J) not yet relative to training; reconstruction,
    kl (B,).
    """

    columns: Tensor
    reconstruction: Tensor
    kl_divergence: Tensor


def _terms(vae: VAE, records: Records) -> _Terms:
    posterior = vae.encode(records)
    likelihood = vae.decode(posterior.mean, records)
    from_others = vae.decode_categories_from_the_others(records)
    squared_MBN = (records.values - likelihood.numeric.mean).square_()
    if isinstance(likelihood.numeric, Gaussian):
        numeric_BN = likelihood.numeric.mean_surprise(squared_MBN)
    else:
        numeric_BN = -likelihood.numeric.log_prob(records.values).mean(dim=0)
    # where the bound cuts, the other half of the term is larger by more than float32 has digits
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
    return _Terms(
        columns=torch.cat(parts, dim=1).clamp_(-HIGHEST_TERM, HIGHEST_TERM),
        reconstruction=(torch.cat(whole, dim=1) * records.observed).sum(dim=1).clamp_(max=HIGHEST_TERM),
        kl_divergence=latent_terms(vae, posterior).mean(dim=0).clamp_(max=HIGHEST_TERM),
    )


def latent_terms(vae: VAE, posterior: Posterior) -> Tensor:
    """(..., n_records) how unusual latents are, in nats, 0 at least: see ``Scores.kl_divergence``."""
    if vae.recipe.regulariser == "kl":
        return vae.prior.kl(posterior)
    return 0.5 * posterior.mean.square().sum(dim=-1)


def _expected(likelihood: ColumnLikelihood) -> Expected:
    numeric, categorical = likelihood.numeric, likelihood.categorical
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


def summarise_training(vae: VAE, records: Records, *, trim: float, seed: int) -> None:
    """Fill the model's buffers from its training records (a sample of them where there are very many).

    trim: share of the records, the highest-scoring, left out of the columns' typical terms (never less than 1
        %: one absurd value would move a mean anywhere).
    """
    layout, n_training = vae.layout, len(records)
    n_most = max(
        LARGEST_SLICE, min(_MOST_SUMMARISED, _MOST_CELLS // (vae.recipe.n_members * len(layout.columns)))
    )
    if len(records) > n_most:
        chosen = torch.randperm(len(records), generator=torch.Generator().manual_seed(seed))[:n_most]
        records = records[chosen.sort().values.to(records.device)]
    records = records.to(vae.device)
    n, n_numeric = len(records), len(layout.numeric)

    squared_MBN = records.numeric.new_empty(vae.recipe.n_members, n, n_numeric)

    def keep_residuals(part: Records, rows: slice) -> None:
        likelihood = vae.decode(vae.encode(part).mean, part)
        squared = (part.values - likelihood.numeric.mean).square()
        squared_MBN[:, rows] = squared[:, : rows.stop - rows.start]

    in_slices(vae, records, keep_residuals)
    squared_MBN.masked_fill_(records.numeric.isnan(), math.nan)
    scale = squared_MBN.flatten(0, 1).nanmedian(dim=0).values / _NORMAL_MEDIAN
    vae.scale.copy_(scale.nan_to_num(nan=1.0).clamp(min=_LOWEST_SCALE))

    if vae.linear is not None:
        recipe = vae.recipe
        vae.linear.fit(records, trim=recipe.linear_trim, floor=recipe.sigma_floor)
        vae.linear.weight.fill_(recipe.linear_records / (recipe.linear_records + n_training))
    terms_BJ, kl_B = records.numeric.new_empty(n, len(layout.columns)), records.numeric.new_empty(n)

    def keep_terms(part: Records, rows: slice) -> None:
        terms = _terms(vae, part)
        terms_BJ[rows] = terms.columns[: rows.stop - rows.start]
        kl_B[rows] = terms.kl_divergence[: rows.stop - rows.start]

    in_slices(vae, records, keep_terms)
    terms_BJ *= records.observed
    n_kept = max(1, round(n * (1 - max(trim, _LEAST_TRIM))))
    kept = (terms_BJ.sum(dim=1) + kl_B).argsort(stable=True)[:n_kept]
    vae.typical.copy_(terms_BJ[kept].sum(dim=0) / records.observed[kept].sum(dim=0).clamp(min=1))
    vae.typical_kl.copy_(kl_B[kept].mean())
