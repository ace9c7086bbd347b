"""The score of the default family in few kernels and no new memory: what `scoring.py` says, faster.

Belongs here: the arithmetic of model.py, noise.py, priors.py and scoring.py for models of numbers with
Gaussian noise, a variance for every cell, and a diagonal posterior from a network. Does not: other models,
which go through those modules, or what a score means.

What depends on the model alone is computed once. Powers and logarithms are to base 2, which costs a third of
base e, and a logarithm is taken of a product over members. Tensors are (…, columns, records), so that a
reduction over columns adds whole rows of memory. A test checks that both ways agree to rounding.
"""

# M members, B records of a slice, N numeric columns, H hidden units, Z latents, K components, C context
# columns

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from vae_core.layers import MemberLinear
from vae_core.linear import fill
from vae_core.model import VAE
from vae_core.noise import HIGHEST_LOG_VARIANCE, LOG2_E
from vae_core.posteriors import LOG_VARIANCE
from vae_core.priors import Mixture, StandardNormal
from vae_core.records import FARTHEST

HIGHEST_TERM = 1e30  # nats; keeps sums finite
HIGHEST_RATIO = 1e18  # of squared residuals to their scale; two multiply without overflow


@dataclass(frozen=True, eq=False)
class SliceScores:
    """Scores of a slice, valid until the next: column_terms (N, B), all others (B,)."""

    anomaly_score: Tensor
    reconstruction: Tensor
    kl_divergence: Tensor
    column_terms: Tensor


class _Buffers:
    """One thread's memory for slices of one size."""

    def __init__(self, of: FusedScorer, size: int) -> None:
        def new(*shape: int) -> Tensor:
            return torch.empty(*shape, size, device=of.device)

        m, n, z = of.n_members, of.n_numeric, of.n_latents
        self.size = size
        self.inputs = new(of.encoder_inputs.shape[1])
        self.inputs[-1] = 1
        self.raw, self.observed, self.reconstruction, self.student = (new(n) for _ in range(4))
        self.residual, self.linear = new(n), new(n)
        self.hidden = new(m, of.width + 1)
        self.latents = new(m, z + 1 + z)  # means, one, log-variances
        self.components = new(m, of.n_components)
        self.outputs = new(m, 2 * n)
        self.place, self.spread = self.outputs[:, :n], self.outputs[:, n:]


class FusedScorer:
    """Scores slices of one model. Built from the model as it is now; safe to call from several threads."""

    def __init__(self, vae: VAE) -> None:
        recipe, layout = vae.recipe, vae.layout
        self.device, self.vae = vae.device, vae
        self.n_members, self.width = recipe.n_members, recipe.width
        self.n_numeric, self.n_latents = len(layout.numeric), recipe.latents_for(layout)
        self.n_context, self.indicated = len(layout.context), torch.tensor(vae.indicated).to(self.device)
        n, z = self.n_numeric, self.n_latents
        # (M, outputs, inputs): a bias is the weight of an input that is one, which each layer hands on. The
        # members' first layers are one map
        self.encoder_inputs = _handing_on(vae.encoder_inputs).flatten(0, 1)
        encoder, decoder = _with_bias(vae.encoder_outputs), _with_bias(vae.decoder_outputs)
        one = torch.zeros_like(encoder[:, :1])
        one[..., -1] = 1
        self.posterior = torch.cat([encoder[:, :z], one, encoder[:, z:] * LOG2_E], dim=1)
        hidden = _handing_on(vae.decoder_inputs)
        self.from_latents = torch.cat([hidden[..., :z], hidden[..., -1:]], dim=-1)
        self.from_context = hidden[..., z:-1].contiguous()
        self.outputs = torch.cat([decoder[:, :n], decoder[:, n : 2 * n] * LOG2_E], dim=1)
        self.lowest_variance = vae.noise.lowest_variance.mT.contiguous()  # (M, N, 1)
        self.n_multiplied = vae.noise.n_multiplied
        self.per_ratio = (1 / (3 * vae.scale))[:, None]
        share = vae.noise.share_in_terms[:, None]
        self.own_share, self.student_share = share, 2 * (1 - share) / self.n_members
        self.typical, self.weights = vae.typical[:, None], (vae.learned * vae.weights[:-1])[:, None]
        self.kl_weight = float(vae.weights[-1])
        self.n_components = 1
        if isinstance(vae.prior, Mixture):
            means_MKZ, seconds_MKZ, constants_MK1 = vae.prior.exponents()
            self.n_components = means_MKZ.shape[1]
            self.exponents = torch.cat([means_MKZ, constants_MK1, seconds_MKZ], dim=-1) * LOG2_E
        self._local = threading.local()

    @classmethod
    def of(cls, vae: VAE) -> Self | None:
        """Return a scorer, or None where the model is of another family."""
        recipe = vae.recipe
        ours = (
            (recipe.encoder, recipe.posterior, recipe.regulariser) == ("network", "diagonal", "kl")
            and isinstance(vae.prior, Mixture | StandardNormal)
            and vae.noise.models == ("gaussian",)
            and not vae.layout.categorical
        )
        return cls(vae) if ours else None

    def __call__(self, numeric: Tensor, context: Tensor, size: int) -> SliceScores:
        """Score at most ``size`` records as one slice of that size.

        numeric: (n_records, n_numeric). context: (n_records, n_context).
        """
        buffers = self._buffers(size)
        self._read(buffers, numeric, context)
        missing = self._any_missing(buffers)
        self._encode(buffers)
        self._decode(buffers)
        kl_divergence = self._kl_divergence(buffers)
        torch.sub(buffers.place, buffers.inputs[: self.n_numeric], out=buffers.place).square_()
        terms, reconstruction = self._terms(buffers)
        self._add_linear(buffers, terms, missing)
        terms.clamp_(-HIGHEST_TERM, HIGHEST_TERM).sub_(self.typical).mul_(buffers.observed).mul_(self.weights)
        score = terms.sum(dim=0).add_(kl_divergence, alpha=self.kl_weight)
        return SliceScores(score, reconstruction, kl_divergence, terms)

    def expect(self, numeric: Tensor, context: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation expected of each cell, (N, size) each.

        Arguments are those of ``__call__``.
        """
        buffers = self._buffers(size)
        self._read(buffers, numeric, context)
        self._encode(buffers)
        self._decode(buffers)
        mean = buffers.place.mean(dim=0)
        buffers.spread.addcmul_(buffers.place.sub_(mean), buffers.place)
        return mean, buffers.spread.mean(dim=0).sqrt_()

    def _buffers(self, size: int) -> _Buffers:
        buffers: _Buffers | None = getattr(self._local, "buffers", None)
        if buffers is None or buffers.size != size:
            buffers = self._local.buffers = None  # freed before the next are allocated
            buffers = self._local.buffers = _Buffers(self, size)
        return buffers

    def _read(self, to: _Buffers, numeric: Tensor, context: Tensor) -> None:
        """Lay the encoder's inputs side by side."""
        n, n_rows = self.n_numeric, len(numeric)
        to.raw[:, :n_rows] = numeric.T
        to.raw[:, n_rows:] = 0
        torch.eq(to.raw, to.raw, out=to.observed)  # NaN equals nothing
        torch.nan_to_num(to.raw, nan=0.0, out=to.inputs[:n])
        if self.n_context:
            of_context = to.inputs[n : n + self.n_context]
            of_context[:, :n_rows] = context.T
            of_context[:, n_rows:] = 0
            of_context.nan_to_num_(nan=0.0)
        to.inputs[: n + self.n_context].clamp_(-FARTHEST, FARTHEST)
        if len(self.indicated):
            torch.sub(1, to.observed[self.indicated], out=to.inputs[n + self.n_context : -1])

    @staticmethod
    def _any_missing(at: _Buffers) -> bool:
        return not bool(at.observed.all())

    def _encode(self, at: _Buffers) -> None:
        """Write posterior means into ``latents[:, :Z]``, log-variances in bits from ``Z + 1`` on."""
        z = self.n_latents
        torch.mm(self.encoder_inputs, at.inputs, out=at.hidden.flatten(0, 1)).relu_()
        torch.bmm(self.posterior, at.hidden, out=at.latents)
        at.latents[:, :z].clamp_(-FARTHEST, FARTHEST)
        at.latents[:, z + 1 :].clamp_(LOG_VARIANCE[0] * LOG2_E, LOG_VARIANCE[1] * LOG2_E)

    def _kl_divergence(self, at: _Buffers) -> Tensor:
        """Return the KL divergence to the prior, (B,) nats; overwrites the log-variances."""
        mean, bits = at.latents[:, : self.n_latents], at.latents[:, self.n_latents + 1 :]
        if not isinstance(self.vae.prior, Mixture):
            excess = torch.exp2(bits).sub_(1).sub_(bits, alpha=math.log(2)).clamp_(min=0)
            kl_MB = excess.addcmul_(mean, mean).sum(dim=1).mul_(0.5)
            return kl_MB.mean(dim=0).clamp_(max=HIGHEST_TERM)
        volume_MB = bits.sum(dim=1)  # twice the logarithm of the posterior's volume
        bits.exp2_().addcmul_(mean, mean)  # second moments
        torch.bmm(self.exponents, at.latents, out=at.components)
        top = at.components.amax(dim=1)
        kl_MB = at.components.sub_(top[:, None]).exp2_().sum(dim=1).log2_().add_(top)
        kl_MB = kl_MB.add_(volume_MB, alpha=0.5).clamp_(max=0)
        return kl_MB.sum(dim=0).mul_(-math.log(2) / self.n_members).clamp_(max=HIGHEST_TERM)

    def _decode(self, at: _Buffers) -> None:
        """Write means into ``place``, variances into ``spread``."""
        torch.bmm(self.from_latents, at.latents[:, : self.n_latents + 1], out=at.hidden)
        if self.n_context:
            context = at.inputs[self.n_numeric : self.n_numeric + self.n_context]
            at.hidden.baddbmm_(self.from_context, context.expand(self.n_members, -1, -1))
        at.hidden.relu_()
        torch.bmm(self.outputs, at.hidden, out=at.outputs)
        at.spread.clamp_(max=HIGHEST_LOG_VARIANCE * LOG2_E).exp2_().add_(self.lowest_variance)

    def _terms(self, at: _Buffers) -> tuple[Tensor, Tensor]:
        """Return the columns' terms (N, B) without the linear model, and the reconstruction (B,).

        ``place`` holds squared residuals; the terms go into ``reconstruction``.
        """
        numeric_NB = torch.div(at.place[0], at.spread[0], out=at.reconstruction)
        for squared, variance in zip(at.place[1:], at.spread[1:], strict=True):
            numeric_NB.addcdiv_(squared, variance)
        self._add_logs(at.spread, self.n_multiplied, numeric_NB, at.linear)
        numeric_NB.mul_(0.5 / self.n_members).add_(0.5 * math.log(2 * math.pi))
        reconstruction = torch.mul(numeric_NB, at.observed, out=at.linear).sum(dim=0).clamp_(max=HIGHEST_TERM)
        at.place.mul_(self.per_ratio).add_(1).clamp_(max=HIGHEST_RATIO)
        at.student.zero_()
        self._add_logs(at.place, 2, at.student, at.linear)
        return numeric_NB.mul_(self.own_share).addcmul_(at.student, self.student_share), reconstruction

    @staticmethod
    def _add_logs(factors: Tensor, together: int, total: Tensor, product: Tensor) -> None:
        """Add the members' logarithms to total (N, B), ``together`` factors a product; overwrites factors."""
        for some in torch.split(factors, together):
            *others, last = some
            for factor in others:
                last.mul_(factor)
            total.add_(torch.log2(last, out=product), alpha=math.log(2))

    def _add_linear(self, at: _Buffers, terms: Tensor, missing: bool) -> None:
        linear = self.vae.linear
        if linear is None or not self.n_numeric:
            return
        modelled = linear.modelled[:, None].to(terms.dtype)
        residual = torch.sub(at.inputs[: self.n_numeric], linear.coefficients[-1:].T, out=at.residual)
        if self.n_context:
            context = at.inputs[self.n_numeric : self.n_numeric + self.n_context]
            residual.addmm_(linear.coefficients[:-1].T, context, alpha=-1)
        if missing:
            present = at.observed * modelled
            residual.mul_(present)
            residual = fill(residual.T, (modelled - present).T, linear.precision).T
            turned = torch.mm(linear.precision, residual, out=at.linear).mul_(residual).mul_(present)
        else:
            turned = torch.mm(linear.precision, residual, out=at.linear).mul_(residual)
        terms.addcmul_(turned, 0.5 * linear.weight)


def _with_bias(layer: MemberLinear) -> Tensor:
    """Return weights (M, outputs, inputs + 1), the bias as the weight of an input that is one."""
    return torch.cat([layer.weight.detach(), layer.bias.detach()], dim=1).mT.contiguous()


def _handing_on(layer: MemberLinear) -> Tensor:
    """Return ``_with_bias`` with one more output, which is always one: (M, outputs + 1, inputs + 1)."""
    weight = functional.pad(_with_bias(layer), (0, 0, 0, 1))
    weight[:, -1, -1] = 1
    return weight
