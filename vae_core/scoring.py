"""How unusual each record is, and in which columns.

Belongs here: the score, its parts, and what it takes from the training records. Does not: thresholds and
p-values (the caller's), or the costlier reasons for flagged records (attribution.py).

Scoring is a pure function of model and record: records go through the networks in slices of one fixed size,
each computed on one thread, so that a score is the same to the bit whatever else is scored beside it.
"""

# M members, B records of a slice, N numeric columns, J columns

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_core.likelihoods import ColumnLikelihood
from vae_core.model import VAE
from vae_core.posteriors import Posterior
from vae_core.records import Records
from vae_core.threads import one_thread_per_kernel

LARGEST_SLICE = 1024  # records that go through the networks together
_SMALLEST_SLICE = 32
_SEARCHED_SLICE = 64  # the same where their latents are searched for
_SLICE_CELLS = 2**19  # of the largest tensor of a slice: what a core's cache holds
_HIGHEST_TERM = 1e30  # nats; keeps sums finite
_NORMAL_MEDIAN = 0.4549364  # median of the square of a standard normal
_LOWEST_SCALE = 1e-3
_LEAST_TRIM = 0.01
_MOST_SUMMARISED = 65_536  # training records that the summary looks at
_MOST_CELLS = 2**24


@dataclass(frozen=True, eq=False)
class Expected:
    """What the model expects of each cell: a mixture over its members.

    mean, std: (n_records, n_numeric) in standardised units.
    code, probability: (n_records, n_categorical) most likely category given the other columns, and how likely it is.
    """

    mean: Tensor
    std: Tensor
    code: Tensor
    probability: Tensor


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of records, in nats; ``anomaly_score = column_terms.sum(1) + kl_divergence``.

    anomaly_score: (n_records,) higher is more anomalous.
    reconstruction: (n_records,) -log p(x|z) at the posterior mean, mean over members.
    kl_divergence: (n_records,) KL(q(z|x) || p(z)), or a bound above it (priors.py), mean over members; never negative. Where
        training held the latents to the prior by a distance or a discriminator, ½‖mean‖² of q(z|x): such training says nothing of a single posterior's spread, which
        shrinks towards nothing, so that −log σ in the KL would be large, arbitrary and no sign of an anomaly, but makes
        the means of normal records look like draws of N(0, I), of which ½‖mean‖² is −log p(z) above its lowest.
    column_terms: (n_records, n_columns) how much more surprising a cell is than that column's cells were on
        average in training, mean over members; 0 where the cell is missing. A number's surprise is half its
        -log p(x|z) and half T = 2 log(1 + e²/(3s)), with e its distance from the decoder's mean and s the column's
        robust squared scale: up to a constant, -log of a Student t density with 3 degrees of freedom; where the column's noise
        model is not Gaussian it is -log p(x|z) alone. To both the linear model's part is added, weighted (linear.py). A category's is
        -log p(x_c | the record without x_c), the pseudo-likelihood's term (Besag 1975): whether it fits the others.
    """

    anomaly_score: Tensor
    reconstruction: Tensor
    kl_divergence: Tensor
    column_terms: Tensor
    expected: Expected


def score(vae: VAE, records: Records) -> Scores:
    """Score records where they lie. A record's scores do not depend on the others or on the number of threads."""
    vae.layout.check(records)
    n, layout = len(records), vae.layout
    new = records.numeric.new_empty
    scores = Scores(
        anomaly_score=new(n),
        reconstruction=new(n),
        kl_divergence=new(n),
        column_terms=new(n, len(layout.columns)),
        expected=Expected(
            mean=new(n, len(layout.numeric)),
            std=new(n, len(layout.numeric)),
            code=torch.empty_like(records.categorical),
            probability=new(n, len(layout.categorical)),
        ),
    )

    def write(part: Records, rows: slice) -> None:
        n_rows = rows.stop - rows.start
        terms = _terms(vae, part)
        column_terms = (terms.columns - vae.typical).mul_(part.observed).mul_(vae.learned)
        scores.anomaly_score[rows] = (column_terms.sum(dim=1) + terms.kl_divergence)[:n_rows]
        scores.reconstruction[rows] = terms.reconstruction[:n_rows]
        scores.kl_divergence[rows] = terms.kl_divergence[:n_rows]
        scores.column_terms[rows] = column_terms[:n_rows]
        expected = _expected(terms.likelihood)
        scores.expected.mean[rows] = expected.mean[:n_rows]
        scores.expected.std[rows] = expected.std[:n_rows]
        scores.expected.code[rows] = expected.code[:n_rows]
        scores.expected.probability[rows] = expected.probability[:n_rows]

    in_slices(vae, records, write)
    return scores


def slice_size(vae: VAE) -> int:
    """How many records go through the networks together: a power of two that depends on the model alone."""
    layout, recipe = vae.layout, vae.recipe
    if recipe.encoder == "none":
        return _SEARCHED_SLICE
    widest = max(recipe.width, 2 * len(layout.numeric) + sum(layout.n_codes))
    fitting = _SLICE_CELLS // (recipe.n_members * widest)
    return min(LARGEST_SLICE, max(_SMALLEST_SLICE, 2 ** (fitting.bit_length() - 1) if fitting else 0))


def in_slices(vae: VAE, records: Records, work: Callable[[Records, slice], None]) -> None:
    """Call ``work`` with each slice of the records, filled up to one size on the model's device, and its place.

    Every kernel thus sees one shape and aligned memory. On a CPU, slices run beside each other on as many threads
    as torch was allowed.
    """
    size = slice_size(vae)

    @torch.inference_mode()
    def run(start: int) -> None:
        rows = slice(start, min(start + size, len(records)))
        part = records[rows]
        filled = Records(*(_filled(x, size) for x in (part.numeric, part.categorical, part.context)))
        work(filled.to(vae.device), rows)

    starts = range(0, len(records), size)
    with one_thread_per_kernel() as n_threads:
        if vae.device.type != "cpu" or len(starts) < 2 or n_threads < 2:
            for start in starts:
                run(start)
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                for _ in pool.map(run, starts):  # raises what a slice raised
                    pass


def _filled(part: Tensor, n_rows: int) -> Tensor:
    """A contiguous copy of (n_rows, n_columns), zeros below the given rows."""
    filled = part.new_zeros(n_rows, part.shape[1])
    filled[: len(part)] = part
    return filled


@dataclass(frozen=True, eq=False)
class _Terms:
    """Means over members, in nats, of a slice: columns (B, J) not yet relative to training; reconstruction, kl (B,)."""

    columns: Tensor
    reconstruction: Tensor
    kl_divergence: Tensor
    likelihood: ColumnLikelihood  # numbers from all columns, each category from the others


def _terms(vae: VAE, records: Records) -> _Terms:
    posterior = vae.encode(records)
    likelihood = vae.decode(posterior.mean, records)
    from_others = vae.decode_categories_from_the_others(records)
    numeric_BN = -likelihood.numeric.log_prob(records.values).mean(dim=0)
    squared_MBN = (records.values - likelihood.numeric.mean).square_()
    student_BN = (squared_MBN * (1 / (3 * vae.scale))).add_(1).log_().mean(dim=0)  # half of T
    share = vae.noise.share_in_terms
    parts = [share * numeric_BN + 2 * (1 - share) * student_BN]
    if vae.linear is not None:
        parts[0] += vae.linear.weight * vae.linear.surprise(records)
    whole = [numeric_BN]
    if from_others.logits:
        parts.append(-from_others.log_prob(records.categorical).mean(dim=0))
        whole.append(-likelihood.categorical.log_prob(records.categorical).mean(dim=0))
    return _Terms(
        columns=torch.cat(parts, dim=1).clamp_(-_HIGHEST_TERM, _HIGHEST_TERM),
        reconstruction=(torch.cat(whole, dim=1) * records.observed).sum(dim=1).clamp_(max=_HIGHEST_TERM),
        kl_divergence=latent_terms(vae, posterior).mean(dim=0).clamp_(max=_HIGHEST_TERM),
        likelihood=ColumnLikelihood(likelihood.numeric, from_others),
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

    trim: share of the records, the highest-scoring, left out of the columns' typical terms (never less than 1 %: one
        absurd value would move a mean anywhere).
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
