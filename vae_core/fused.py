"""The score of the default family in few kernels and little new memory: what `scoring.py` says, faster.

Belongs here: the arithmetic of model.py, noise.py, likelihoods.py, priors.py and scoring.py for models with
Gaussian noise, a variance for every cell, and a diagonal posterior from a network. Does not: other models,
which go through those modules, what a score means, or the weights as they are used here (fused_weights.py).

Powers and logarithms are to base 2, which costs a third of base e, and a logarithm is taken of a product over
members. Tensors are (…, columns, records), so that a reduction over columns adds whole rows of memory. What
would not fit into a core's cache for all members is computed member by member. A test checks that both ways
agree to rounding.
"""

# M members, B records of a slice, N numeric columns, C categorical columns, J all columns, K codes of one
# column, H hidden units and the one that they hand on, Z latents

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from vae_core.fused_weights import FusedWeights
from vae_core.layers import product
from vae_core.linear import fill
from vae_core.model import VAE
from vae_core.noise import HIGHEST_LOG_VARIANCE, LOG2_E
from vae_core.posteriors import LOG_VARIANCE
from vae_core.priors import Mixture, StandardNormal
from vae_core.records import FARTHEST, MISSING, Records
from vae_core.recurring import soften

HIGHEST_TERM = 1e30  # nats; keeps sums finite
HIGHEST_RATIO = 1e18  # of squared residuals to their scale; two multiply without overflow
LN_2 = math.log(2)


@dataclass(frozen=True, eq=False)
class SliceScores:
    """Scores of a slice, valid until the next: column_terms (J, B), all others (B,)."""

    anomaly_score: Tensor
    reconstruction: Tensor
    kl_divergence: Tensor
    column_terms: Tensor


class _Buffers:
    """One thread's memory for slices of one size."""

    def __init__(self, of: FusedWeights, size: int) -> None:
        def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(*shape, size, device=of.device, dtype=dtype)

        m, n, z = of.n_members, of.n_numeric, of.n_latents
        self.size = size
        self.inputs = new(of.encoder_inputs.shape[-1])
        self.inputs[-1] = 1
        self.raw, self.ratios, self.student, self.residual = (new(n) for _ in range(4))
        self.codes = new(of.n_categorical, dtype=torch.int64)
        self.observed, self.terms, self.whole = (new(n + of.n_categorical) for _ in range(3))
        self.latents = new(m, of.n_context + z + 1 + z)  # context, means, one, log-variances
        self.context, self.own = self.latents[:, : of.n_context], self.latents[:, of.n_context :]
        self.means, self.bits = self.own[:, :z], self.own[:, z + 1 :]
        self.decoded = self.latents[:, : of.n_context + z + 1]
        self.logits = new(m, sum(of.n_codes))
        self.components = new(m, of.n_components)


class _SumOfLogs:
    """Adds the logarithms of factors to ``total``, ``together`` factors a product; overwrites factors."""

    def __init__(self, total: Tensor, together: int) -> None:
        self.total, self.together, self.n = total, together, 0
        self.product = total  # of the factors since the last logarithm

    def add(self, factor: Tensor) -> None:
        self.product = self.product.mul_(factor) if self.n else factor
        self.n += 1
        if self.n == self.together:
            self.close()

    def close(self) -> None:
        if self.n:
            self.total.add_(self.product.log2_(), alpha=LN_2)
            self.n = 0


class FusedScorer:
    """Scores slices of one model. Built from the model as it is now; safe to call from several threads."""

    def __init__(self, vae: VAE) -> None:
        self.vae, self.of_model, self._local = vae, FusedWeights(vae), threading.local()

    @classmethod
    def of(cls, vae: VAE) -> Self | None:
        """Return a scorer, or None where the model is of another family."""
        recipe = vae.recipe
        ours = (
            (recipe.encoder, recipe.posterior, recipe.regulariser) == ("network", "diagonal", "kl")
            and isinstance(vae.prior, Mixture | StandardNormal)
            and set(vae.noise.models) <= {"gaussian"}
        )
        return cls(vae) if ours else None

    def __call__(self, records: Records, size: int) -> SliceScores:
        """Score at most ``size`` records as one slice of that size."""
        at, of = self._buffers(size), self.of_model
        self._read(at, records)
        missing = self._any_missing(at)
        base = self._encode(at)
        kl_divergence = self._kl_divergence(at)
        self._numeric_terms(at)
        self._add_linear(at, missing)
        if of.n_categorical:
            self._categorical_terms(at, base)
        reconstruction = at.whole.mul_(at.observed).sum(dim=0).clamp_(max=HIGHEST_TERM)
        terms = at.terms.clamp_(-HIGHEST_TERM, HIGHEST_TERM).sub_(of.typical)
        soften(terms, at.raw, of.recurring)
        terms.mul_(at.observed).mul_(of.weights)
        score = terms.sum(dim=0).add_(kl_divergence, alpha=of.kl_weight)
        return SliceScores(score, reconstruction, kl_divergence, terms)

    def expect(self, records: Records, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what is expected of each cell: mean and standard deviation of numbers, (N, size) each.

        Then the likeliest code and its probability, (C, size) each. Arguments are those of ``__call__``.
        """
        at, of = self._buffers(size), self.of_model
        self._read(at, records)
        base = self._encode(at)
        place, spread = torch.stack([self._decode(at, m) for m in range(of.n_members)])[
            :, : 2 * of.n_numeric
        ].chunk(2, dim=1)
        self._to_variance(spread, of.lowest_variance)
        mean = place.mean(dim=0)
        std = spread.addcmul_(place.sub_(mean), place).mean(dim=0).sqrt_()
        likeliest = [
            self._probabilities(logits).max(dim=0) for logits in self._logits_from_the_others(at, base)
        ]
        code, probability = at.codes.clone(), mean.new_empty(of.n_categorical, size)
        for column, found in enumerate(likeliest):
            code[column], probability[column] = found.indices, found.values
        return mean, std, code, probability

    def _buffers(self, size: int) -> _Buffers:
        buffers: _Buffers | None = getattr(self._local, "buffers", None)
        if buffers is None or buffers.size != size:
            buffers = self._local.buffers = None  # freed before the next are allocated
            buffers = self._local.buffers = _Buffers(self.of_model, size)
        return buffers

    def _read(self, to: _Buffers, records: Records) -> None:
        """Lay the encoder's inputs side by side: numbers, context, what is missing, codes as 0 and 1."""
        of, n_rows = self.of_model, len(records)
        n, context = of.n_numeric, slice(of.n_numeric, of.n_numeric + of.n_context)
        to.raw[:, :n_rows] = records.numeric.T
        if n_rows < to.size:
            to.raw[:, n_rows:] = 0
        torch.eq(to.raw, to.raw, out=to.observed[:n])  # NaN equals nothing
        torch.nan_to_num(to.raw, nan=0.0, out=to.inputs[:n])
        if of.n_context:
            to.inputs[context, :n_rows] = records.context.T
            to.inputs[context, n_rows:] = 0
            to.inputs[context].nan_to_num_(nan=0.0)
        to.inputs[: context.stop].clamp_(-FARTHEST, FARTHEST)
        to.context[:] = to.inputs[context]
        if len(of.indicated):
            torch.sub(1, to.observed[of.indicated], out=to.inputs[of.indicators])
        if of.n_categorical:
            to.codes[:, :n_rows] = records.categorical.T
            to.codes[:, n_rows:] = 0
            to.observed[n:] = to.codes != MISSING
            for column, rows in of.one_hot.items():
                to.inputs[rows].zero_().scatter_(0, to.codes[column : column + 1] - MISSING, 1)

    @staticmethod
    def _any_missing(at: _Buffers) -> bool:
        numbers = at.observed[: len(at.raw)]
        return bool(numbers.numel()) and float(numbers.amin()) < 1

    def _encode(self, at: _Buffers) -> Tensor:
        """Write posterior means into ``means``, log-variances in bits into ``bits``.

        Returns the hidden units (M, H, B), not yet rectified where there are categories.
        """
        of = self.of_model
        hidden = product(of.encoder_inputs, at.inputs, rectified=not of.n_categorical)
        units_MHB = hidden.view(of.n_members, -1, at.size)
        for column, table in of.wide.items():
            units_MHB.add_(table.index_select(2, at.codes[column] - MISSING))
        for member, units in enumerate(units_MHB):
            self._posterior(at, member, units.relu() if of.n_categorical else units, of.posterior[member])
        at.bits.clamp_(LOG_VARIANCE[0] * LOG2_E, LOG_VARIANCE[1] * LOG2_E)
        return units_MHB

    @staticmethod
    def _posterior(at: _Buffers, member: int, hidden: Tensor, weight: Tensor) -> None:
        """Write the first of the encoder's outputs, as many as weight (n_outputs, H) has."""
        at.own[member, : len(weight)] = product(weight, hidden)
        at.means[member].clamp_(-FARTHEST, FARTHEST)

    def _kl_divergence(self, at: _Buffers) -> Tensor:
        """Return the KL divergence to the prior, (B,) nats; overwrites the log-variances."""
        mean, bits, of = at.means, at.bits, self.of_model
        if of.exponents is None:
            excess = torch.exp2(bits).sub_(1).sub_(bits, alpha=LN_2).clamp_(min=0)
            kl_MB = excess.addcmul_(mean, mean).sum(dim=1).mul_(0.5)
            return kl_MB.mean(dim=0).clamp_(max=HIGHEST_TERM)
        volume_MB = bits.sum(dim=1)  # twice the logarithm of the posterior's volume
        bits.exp2_().addcmul_(mean, mean)  # second moments
        for to, weights, moments in zip(at.components, of.exponents, at.own, strict=True):
            to[:] = product(weights, moments)
        top = at.components.amax(dim=1)
        kl_MB = at.components.sub_(top[:, None]).exp2_().sum(dim=1).log2_().add_(top)
        kl_MB = kl_MB.add_(volume_MB, alpha=0.5).clamp_(max=0)
        return kl_MB.sum(dim=0).mul_(-LN_2 / of.n_members).clamp_(max=HIGHEST_TERM)

    def _decode(self, at: _Buffers, member: int, outputs: slice = slice(None)) -> Tensor:
        """Return a member's outputs (n_outputs, B) at its posterior mean, all but the means in bits."""
        hidden = product(self.of_model.from_latents[member], at.decoded[member], rectified=True)
        return product(self.of_model.outputs[member, outputs], hidden)

    @staticmethod
    def _to_variance(spread: Tensor, lowest: Tensor) -> Tensor:
        return spread.clamp_(max=HIGHEST_LOG_VARIANCE * LOG2_E).exp2_().add_(lowest)

    def _numeric_terms(self, at: _Buffers) -> None:
        """Write the numbers' terms without the linear model, −log p(x|z), and the logits of all members."""
        of, n = self.of_model, self.of_model.n_numeric
        terms, values = at.terms[:n], at.inputs[:n]
        ratios, student = at.ratios.zero_(), at.student.zero_()
        variances, students = _SumOfLogs(ratios, of.n_multiplied), _SumOfLogs(student, 2)
        for member in range(of.n_members):
            found = self._decode(at, member)
            place, spread = found[:n], self._to_variance(found[n : 2 * n], of.lowest_variance[member])
            at.logits[member] = found[2 * n :]
            ratios.addcdiv_(place.sub_(values).square_(), spread)
            variances.add(spread)
            students.add(place.mul_(of.per_ratio).add_(1).clamp_(max=HIGHEST_RATIO))
        variances.close()
        students.close()
        ratios.mul_(0.5 / of.n_members).add_(0.5 * math.log(2 * math.pi))
        at.whole[:n] = ratios
        torch.mul(ratios, of.own_share, out=terms).addcmul_(student, of.student_share)

    def _categorical_terms(self, at: _Buffers, base: Tensor) -> None:
        """Write the categories' −log p(x|z), and their terms: −log p of each given the others."""
        n, of = self.of_model.n_numeric, self.of_model
        logits = torch.split(at.logits, list(of.n_codes), dim=1)
        for column, (of_all, of_others) in enumerate(
            zip(logits, self._logits_from_the_others(at, base), strict=True)
        ):
            at.whole[n + column] = self._surprise(of_all, at, column)
            at.terms[n + column] = self._surprise(of_others, at, column)

    def _logits_from_the_others(self, at: _Buffers, base: Tensor) -> Iterator[Tensor]:
        """Yield each column's logits in bits (M, K, B), at the posterior mean of the record without it."""
        of, first = self.of_model, 2 * self.of_model.n_numeric
        for column, n_codes in enumerate(of.n_codes):
            found = base.new_empty(of.n_members, n_codes, at.size)
            for member, units in enumerate(base):
                hidden = self._removal(at, column, member).add_(units).relu_()
                self._posterior(at, member, hidden, of.posterior_means[member])
                found[member] = self._decode(at, member, slice(first, first + n_codes))
            yield found
            first += n_codes

    def _removal(self, at: _Buffers, column: int, member: int) -> Tensor:
        """Return what to add to a member's hidden units for a column to count as missing, (H, B)."""
        table, rows = self.of_model.removal[column][member], self.of_model.one_hot.get(column)
        if rows is None:
            return table.index_select(1, at.codes[column] - MISSING)
        return product(table, at.inputs[rows])

    def _surprise(self, logits: Tensor, at: _Buffers, column: int) -> Tensor:
        """Return −log p of a column's codes (B,), mean over members; of a missing one any number.

        Overwrites logits (M, K, B).
        """
        logits.sub_(logits.amax(dim=1, keepdim=True))
        chosen = at.codes[column].clamp(min=0).expand(len(logits), 1, -1)
        bits_MB = logits.gather(1, chosen)[:, 0].sub_(logits.exp2_().sum(dim=1).log2_())
        from_softmax = bits_MB.mul_(LN_2).add_(math.log1p(-self.vae.recipe.category_floor))
        return torch.logaddexp(from_softmax, self.of_model.even_shares[column]).mean(dim=0).neg_()

    def _probabilities(self, logits: Tensor) -> Tensor:
        """Return one column's probabilities (K, B), mean over members."""
        floor = self.vae.recipe.category_floor
        of_codes = logits.mul_(LN_2).softmax(dim=1).mean(dim=0)
        return of_codes.mul_(1 - floor).add_(floor / logits.shape[1])

    def _add_linear(self, at: _Buffers, missing: bool) -> None:
        linear, of = self.vae.linear, self.of_model
        n = of.n_numeric
        if linear is None or not n:
            return
        terms, observed = at.terms[:n], at.observed[:n]
        modelled = linear.modelled[:, None].to(terms.dtype)
        residual = torch.sub(at.inputs[:n], linear.coefficients[-1:].T, out=at.residual)
        if of.n_context:
            residual.addmm_(linear.coefficients[:-1].T, at.inputs[n : n + of.n_context], alpha=-1)
        if missing:
            present = observed * modelled
            residual.mul_(present)
            residual = fill(residual.T, (modelled - present).T, linear.precision).T
            turned = product(linear.precision, residual).mul_(residual).mul_(present)
        else:
            turned = product(linear.precision, residual).mul_(residual)
        terms.addcmul_(turned, 0.5 * linear.weight)
