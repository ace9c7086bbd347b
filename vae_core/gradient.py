"""The default family's loss and gradient in few kernels: autograd's, three times as fast for small nets.

Belongs here: the arithmetic of objectives.py on model.py, noise.py, posteriors.py and priors.py, and its
derivative by hand, for models of numbers with Gaussian noise, a variance for every cell, a diagonal posterior
from a network, and a mixture as prior. Does not: other models or losses, which go through autograd; the
optimiser (run.py).

A step of a small net costs as much as the calls it makes, which are far fewer here than autograd's
(counted in docs/reference/gpu.md). A test checks that both agree to rounding.
"""

# M members, B records of a minibatch, N numeric columns, H hidden units, Z latents, K components

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_core.known import Known
from vae_core.model import VAE
from vae_core.noise import HIGHEST_LOG_VARIANCE
from vae_core.parallel import Share
from vae_core.posteriors import LOG_VARIANCE
from vae_core.priors import LOG_STD, Mixture
from vae_core.records import FARTHEST, Records

_LOG_2_PI = math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class Gradient:
    """Gradient of the loss summed over members, by name of the parameter.

    loss, reconstruction, kl_divergence: (M, B) nats. weight: (M, B) of each record in the mean loss.
    """

    by_name: dict[str, Tensor]
    loss: Tensor
    reconstruction: Tensor
    kl_divergence: Tensor
    weight: Tensor

    def means(self, share: Share | None = None) -> Tensor:
        """Return (4,): loss, reconstruction and KL of the records that count, and the loss of all.

        Means over the members. share: where the batch is a part of the minibatch, to whose means it then
        adds.
        """
        terms = torch.stack([self.loss, self.reconstruction, self.kl_divergence])
        counted = (terms * self.weight).sum(dim=(1, 2)) / len(self.loss)
        part = 1.0 if share is None else self.loss.shape[1] / share.n_records
        return torch.cat([counted, self.loss.mean()[None] * part])


def is_known_by_hand(vae: VAE, known: Known) -> bool:
    """Return whether ``gradient`` supports this model and its loss."""
    recipe = vae.recipe
    chosen = recipe.encoder, recipe.posterior, recipe.regulariser, recipe.reconstruction, recipe.samples
    return (
        chosen == ("network", "diagonal", "kl", "likelihood", 1)
        and isinstance(vae.prior, Mixture)
        and vae.noise.models == ("gaussian",)
        and not (vae.layout.categorical or recipe.free_nats or known)
    )


@torch.no_grad()
def gradient(
    vae: VAE,
    batch: Records,
    noise: Tensor,
    *,
    kl_weight: Tensor | float,
    n_trimmed: int,
    share: Share | None = None,
) -> Gradient:
    """Return the gradient of the members' mean loss, without the n_trimmed records of highest loss.

    batch: (S · B) minibatches of S sets of records, one after another; each serves equally many members.
    noise: (M, B, Z) standard-normal draws.
    share: where the batch is a part of the minibatch, to whose mean it then adds.
    """
    n_members, n_rows = noise.shape[:2]
    n_sets = len(batch) // n_rows

    def by_member(rows: Tensor) -> Tensor:
        if n_sets == 1:
            return rows.expand(n_members, -1, -1)
        return rows.view(n_sets, n_rows, -1).repeat_interleave(n_members // n_sets, dim=0)

    values, observed = (x if n_sets == 1 else by_member(x) for x in (batch.values, batch.observed))
    inputs = by_member(vae.encoder_input(batch))
    encoder, posterior = vae.encoder_inputs, vae.encoder_outputs
    hidden = torch.baddbmm(encoder.bias, inputs, encoder.weight).relu_()
    outputs = torch.baddbmm(posterior.bias, hidden, posterior.weight)
    raw_mean, raw_log_variance = outputs.chunk(2, dim=-1)
    mean, log_variance = raw_mean.clamp(-FARTHEST, FARTHEST), raw_log_variance.clamp(*LOG_VARIANCE)
    away = (0.5 * log_variance).exp_().mul_(noise)
    latents = mean + away
    if vae.layout.context:
        latents = torch.cat([latents, by_member(batch.context_values)], dim=-1)
    decoder, column = vae.decoder_inputs, vae.decoder_outputs
    decoded = torch.baddbmm(decoder.bias, latents, decoder.weight).relu_()
    out = torch.baddbmm(column.bias, decoded, column.weight)

    cells = _Cells(vae, out, values, observed)
    prior = vae.prior
    if not isinstance(prior, Mixture):
        raise TypeError(
            f"no hand-written gradient for prior {type(prior).__name__}: check is_known_by_hand first"
        )
    mixture = _Mixture(prior, mean, log_variance)
    loss_MB = (mixture.kl_divergence * kl_weight).add_(cells.reconstruction)
    weight_MB = _weights(loss_MB, n_trimmed, share)
    cells.back(weight_MB)

    # back through the decoder, the draw and the encoder
    by_name: dict[str, Tensor] = {}
    _to_layer(by_name, "decoder_outputs", decoded, out)
    to_decoded = torch.bmm(out, column.weight.mT).mul_(decoded > 0)
    _to_layer(by_name, "decoder_inputs", latents, to_decoded)
    n_latents = mean.shape[-1]
    to_draw = torch.bmm(to_decoded, decoder.weight[:, :n_latents].mT)
    charged_MB = (kl_weight * weight_MB).mul_(mixture.kl_divergence > 0)
    to_mean, to_log_variance = mixture.back(charged_MB, by_name)
    to_mean.add_(to_draw).mul_(raw_mean.abs() <= FARTHEST)
    to_log_variance.add_(to_draw.mul_(away), alpha=0.5)
    to_log_variance.mul_((raw_log_variance >= LOG_VARIANCE[0]) & (raw_log_variance <= LOG_VARIANCE[1]))
    to_outputs = torch.cat([to_mean, to_log_variance], dim=-1)
    _to_layer(by_name, "encoder_outputs", hidden, to_outputs)
    to_hidden = torch.bmm(to_outputs, posterior.weight.mT).mul_(hidden > 0)
    _to_layer(by_name, "encoder_inputs", inputs, to_hidden)
    return Gradient(by_name, loss_MB, cells.reconstruction, mixture.kl_divergence, weight_MB)


def _weights(loss_MB: Tensor, n_trimmed: int, share: Share | None) -> Tensor:
    """Return each record's weight (M, B) in the mean loss: 0 for the highest losses, else the same."""
    whole_MB = loss_MB if share is None else share.gathered(loss_MB)
    weight_MB = torch.full_like(whole_MB, 1 / (whole_MB.shape[1] - n_trimmed))
    if n_trimmed:
        weight_MB.scatter_(1, whole_MB.topk(n_trimmed, dim=1, sorted=False).indices, 0.0)
    return weight_MB if share is None else weight_MB[:, share.mine]


def _to_layer(by_name: dict[str, Tensor], name: str, inputs: Tensor, to_outputs: Tensor) -> None:
    """Set the gradient of a layer's weights and biases, given that of its outputs."""
    by_name[f"{name}.weight"] = torch.bmm(inputs.mT, to_outputs)
    by_name[f"{name}.bias"] = to_outputs.sum(dim=1, keepdim=True)


class _Cells:
    """The reconstruction of records, (M, B) nats, from a decoder's outputs, and its backward pass."""

    def __init__(self, vae: VAE, out: Tensor, values: Tensor, observed: Tensor) -> None:
        n = len(vae.layout.numeric)
        self.place, self.spread, self.observed = out[..., :n], out[..., n:], observed
        self.free = self.spread < HIGHEST_LOG_VARIANCE
        self.exponential = self.spread.clamp(max=HIGHEST_LOG_VARIANCE).exp_()
        self.variance = self.exponential + vae.noise.lowest_variance
        self.scaled = torch.sub(values, self.place).div_(self.variance)
        squared = (self.scaled * self.scaled).mul_(self.variance)
        cells = squared.add_(self.variance.log()).add_(_LOG_2_PI).mul_(observed)
        self.reconstruction = cells.sum(dim=-1).mul_(0.5)

    def back(self, weight_MB: Tensor) -> None:
        """Overwrite the outputs with their gradient, given each record's weight in the loss."""
        weight_MBN = weight_MB[..., None] * self.observed
        to_spread = (self.scaled * self.scaled).neg_().add_(self.variance.reciprocal())
        to_spread.mul_(self.exponential).mul_(self.free).mul_(0.5)
        torch.mul(to_spread, weight_MBN, out=self.spread)
        torch.mul(self.scaled, weight_MBN.neg_(), out=self.place)


class _Mixture:
    """The KL of posteriors to a mixture, (M, B) nats, and its backward pass."""

    def __init__(self, prior: Mixture, mean: Tensor, log_variance: Tensor) -> None:
        self.prior, self.mean = prior, mean
        self.variance = log_variance.exp()
        self.second = torch.addcmul(self.variance, mean, mean)
        self.log_std = prior.log_std.clamp(*LOG_STD)
        self.precision = (-2 * self.log_std).exp_()
        self.weighted = self.precision * prior.mean
        constant_MK = torch.addcmul(2 * self.log_std - 1, self.weighted, prior.mean).sum(dim=-1)
        self.shares = prior.logits.log_softmax(dim=-1)
        each_MBK = torch.baddbmm(self.shares - 0.5 * constant_MK[:, None], mean, self.weighted.mT)
        each_MBK.baddbmm_(self.second, self.precision.mT, alpha=-0.5)
        total_MB = each_MBK.logsumexp(dim=-1, keepdim=True)
        self.blame = each_MBK.sub_(total_MB).exp_()
        volume_MB = log_variance.sum(dim=-1)
        self.kl_divergence = total_MB[..., 0].add_(volume_MB, alpha=0.5).neg_().clamp_(min=0)

    def back(self, charged: Tensor, by_name: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the gradients of posterior means and log-variances, given the weight (M, B) of each nat.

        The prior's go into ``by_name``.
        """
        blame = self.blame.mul_(charged[..., None])
        n_MK1, first_MKZ = blame.sum(dim=1)[..., None], torch.bmm(blame.mT, self.mean)
        second_MKZ = torch.bmm(blame.mT, self.second)
        means = self.prior.mean
        by_name["prior.mean"] = (n_MK1 * means).sub_(first_MKZ).mul_(self.precision)
        spread = second_MKZ.addcmul_(means, n_MK1 * means - 2 * first_MKZ).mul_(self.precision)
        inside = (self.prior.log_std >= LOG_STD[0]) & (self.prior.log_std <= LOG_STD[1])
        by_name["prior.log_std"] = (n_MK1 - spread).mul_(inside)
        counts = n_MK1.mT
        by_name["prior.logits"] = self.shares.exp().mul_(counts.sum(dim=-1, keepdim=True)).sub_(counts)
        precision = torch.bmm(blame, self.precision)
        to_mean = torch.baddbmm(precision * self.mean, blame, self.weighted, alpha=-1)
        to_log_variance = precision.mul_(self.variance).sub_(charged[..., None]).mul_(0.5)
        return to_mean, to_log_variance
