"""The default family's loss and gradient in few kernels: autograd's, three times as fast for small nets.

Belongs here: the arithmetic of objectives.py on model.py, noise.py, posteriors.py and priors.py, and its
derivative by hand, for models of numbers with Gaussian noise, a variance for every cell, a diagonal posterior
from a network, and a mixture as prior; the loss is the evidence lower bound or the importance-weighted one.
Does not: other models or losses, which go through autograd; the optimiser (run.py).

A step of a small net costs as much as the calls it makes, which are far fewer here than autograd's
(counted in docs/reference/gpu.md). A test checks that both agree to rounding.
"""

# M members, B records of a minibatch, N numeric columns, H hidden units, Z latents, K draws a record, C
# components of the prior, R = K · B

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

    loss, kl_divergence, reconstruction (of the first draw): (M, B) nats. weight: (M, B) of each record in the
    mean loss.
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
    chosen = recipe.encoder, recipe.posterior, recipe.regulariser, recipe.reconstruction
    return (
        chosen == ("network", "diagonal", "kl", "likelihood")
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
    noise: (K, M, B, Z) standard-normal draws. One gives the evidence lower bound, several the
    importance-weighted one, which has no kl_weight.
    share: where the batch is a part of the minibatch, to whose mean it then adds.
    """
    prior, (n_draws, n_members, n_rows) = vae.prior, noise.shape[:3]
    if not isinstance(prior, Mixture):
        raise TypeError(
            f"no hand-written gradient for prior {type(prior).__name__}: check is_known_by_hand first"
        )
    n_sets = len(batch) // n_rows

    def by_member(rows: Tensor) -> Tensor:
        if n_sets == 1:
            return rows.expand(n_members, -1, -1)
        return rows.view(n_sets, n_rows, -1).repeat_interleave(n_members // n_sets, dim=0)

    encoder = _Encoder(vae, by_member(vae.encoder_input(batch)), noise)
    decoder = _Decoder(vae, encoder.draws, by_member(batch.context_values))
    cells = (x if n_sets == 1 else by_member(x)[:, None] for x in (batch.values, batch.observed))
    likelihood = _Likelihood(vae, decoder.out.view(n_members, n_draws, n_rows, -1), *cells)
    reconstruction_MKB = likelihood.reconstruction
    elbo = _Elbo(prior, encoder, reconstruction_MKB, kl_weight)
    bound = elbo if n_draws == 1 else _ImportanceWeighted(prior, encoder, reconstruction_MKB)
    weight_MB = _weights(bound.loss, n_trimmed, share)

    by_name: dict[str, Tensor] = {}
    likelihood.back(bound.weights(weight_MB))
    to_latents = decoder.back(by_name)
    encoder.back(*bound.back(to_latents, weight_MB, by_name), by_name)
    return Gradient(by_name, bound.loss, reconstruction_MKB[:, 0], elbo.kl_divergence, weight_MB)


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


class _Encoder:
    """Posteriors, (M, B, Z) of mean and log-variance, draws of them, (M, R, Z), and the backward pass."""

    def __init__(self, vae: VAE, inputs: Tensor, noise: Tensor) -> None:
        self.inputs, self.to_outputs = inputs, vae.encoder_outputs
        self.hidden = torch.baddbmm(vae.encoder_inputs.bias, inputs, vae.encoder_inputs.weight).relu_()
        outputs = torch.baddbmm(self.to_outputs.bias, self.hidden, self.to_outputs.weight)
        self.raw_mean, self.raw_log_variance = outputs.chunk(2, dim=-1)
        self.mean = self.raw_mean.clamp(-FARTHEST, FARTHEST)
        self.log_variance = self.raw_log_variance.clamp(*LOG_VARIANCE)
        self.volume_MB = self.log_variance.sum(dim=-1)
        self.noise = noise.transpose(0, 1)
        self.away = (0.5 * self.log_variance).exp_()[:, None] * self.noise
        self.draws = (self.mean[:, None] + self.away).flatten(1, 2)

    def back(self, to_mean: Tensor, to_log_variance: Tensor, by_name: dict[str, Tensor]) -> None:
        """Set the gradients of the encoder's weights, given those of means and log-variances."""
        low, high = LOG_VARIANCE
        to_mean.mul_(self.raw_mean.abs() <= FARTHEST)
        to_log_variance.mul_((self.raw_log_variance >= low) & (self.raw_log_variance <= high))
        to_outputs = torch.cat([to_mean, to_log_variance], dim=-1)
        _to_layer(by_name, "encoder_outputs", self.hidden, to_outputs)
        to_hidden = torch.bmm(to_outputs, self.to_outputs.weight.mT).mul_(self.hidden > 0)
        _to_layer(by_name, "encoder_inputs", self.inputs, to_hidden)


class _Decoder:
    """A decoder's outputs for latents (M, R, Z), and the backward pass."""

    def __init__(self, vae: VAE, latents: Tensor, context: Tensor) -> None:
        self.inputs, self.n_latents = latents, latents.shape[-1]
        if vae.layout.context:
            n_draws = latents.shape[1] // context.shape[1]
            of_draws = context[:, None].expand(-1, n_draws, -1, -1).flatten(1, 2)
            self.inputs = torch.cat([latents, of_draws], dim=-1)
        self.to_hidden, self.to_out = vae.decoder_inputs, vae.decoder_outputs
        self.hidden = torch.baddbmm(self.to_hidden.bias, self.inputs, self.to_hidden.weight).relu_()
        self.out = torch.baddbmm(self.to_out.bias, self.hidden, self.to_out.weight)

    def back(self, by_name: dict[str, Tensor]) -> Tensor:
        """Return the gradient of the latents and set those of the weights, once ``out`` holds its own."""
        _to_layer(by_name, "decoder_outputs", self.hidden, self.out)
        to_hidden = torch.bmm(self.out, self.to_out.weight.mT).mul_(self.hidden > 0)
        _to_layer(by_name, "decoder_inputs", self.inputs, to_hidden)
        return torch.bmm(to_hidden, self.to_hidden.weight[:, : self.n_latents].mT)


class _Likelihood:
    """The reconstruction of records, (M, K, B) nats, from a decoder's outputs, and its backward pass."""

    def __init__(self, vae: VAE, out: Tensor, values: Tensor, observed: Tensor) -> None:
        n = len(vae.layout.numeric)
        self.place, self.spread, self.observed = out[..., :n], out[..., n:], observed
        self.free = self.spread < HIGHEST_LOG_VARIANCE
        self.exponential = self.spread.clamp(max=HIGHEST_LOG_VARIANCE).exp_()
        self.variance = self.exponential + vae.noise.lowest_variance[:, None]
        self.scaled = torch.sub(values, self.place).div_(self.variance)
        squared = (self.scaled * self.scaled).mul_(self.variance)
        cells = squared.add_(self.variance.log()).add_(_LOG_2_PI).mul_(observed)
        self.reconstruction = cells.sum(dim=-1).mul_(0.5)

    def back(self, weight_MKB: Tensor) -> None:
        """Overwrite the outputs with their gradient, given each draw's weight in the loss."""
        weight_MKBN = weight_MKB[..., None] * self.observed
        to_spread = (self.scaled * self.scaled).neg_().add_(self.variance.reciprocal())
        to_spread.mul_(self.exponential).mul_(self.free).mul_(0.5)
        torch.mul(to_spread, weight_MKBN, out=self.spread)
        torch.mul(self.scaled, weight_MKBN.neg_(), out=self.place)


class _Elbo:
    """The loss of a draw, −log p(x|z) and the KL in closed form, (M, B) nats, and its backward pass."""

    def __init__(
        self,
        prior: Mixture,
        encoder: _Encoder,
        reconstruction_MKB: Tensor,
        kl_weight: Tensor | float,
    ) -> None:
        self.encoder, self.kl_weight = encoder, kl_weight
        self.variance = encoder.log_variance.exp()
        second = torch.addcmul(self.variance, encoder.mean, encoder.mean)
        self.mixture = _Mixture(prior, encoder.mean, second)
        self.kl_divergence = self.mixture.total.add(encoder.volume_MB, alpha=0.5).neg_().clamp_(min=0)
        self.loss = (self.kl_divergence * kl_weight).add_(reconstruction_MKB[:, 0])

    def weights(self, weight_MB: Tensor) -> Tensor:
        """Return each draw's weight, (M, 1, B), in the gradient, given its record's in the mean loss."""
        return weight_MB[:, None]

    def back(
        self, to_latents: Tensor, weight_MB: Tensor, by_name: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of posterior means and log-variances, given that of the draw by its decoding.

        The prior's go into ``by_name``.
        """
        charged = (self.kl_weight * weight_MB).mul_(self.kl_divergence > 0)
        to_mean, precision = self.mixture.back(charged, by_name)
        to_log_variance = precision.mul_(self.variance).sub_(charged[..., None]).mul_(0.5)
        to_log_variance.add_(to_latents.mul(self.encoder.away[:, 0]), alpha=0.5)
        return to_mean.add_(to_latents), to_log_variance


class _ImportanceWeighted:
    """The loss of K draws, −log of the mean of p(x, z) / q(z|x), (M, B) nats, and its backward pass.

    A draw counts in the gradient by its part of the mean (Burda et al. 2016, eq. 13).
    """

    def __init__(self, prior: Mixture, encoder: _Encoder, reconstruction_MKB: Tensor) -> None:
        self.encoder, latents = encoder, encoder.draws
        self.mixture = _Mixture(prior, latents, latents * latents)
        n_draws, n_rows, n_latents = encoder.away.shape[1:]
        log_weights = self.mixture.total.view(-1, n_draws, n_rows) - 0.5 * n_latents
        squared = encoder.noise.square().sum(dim=-1)
        log_weights.add_(squared.add_(encoder.volume_MB[:, None]), alpha=0.5).sub_(reconstruction_MKB)
        total_MB = log_weights.logsumexp(dim=1)
        self.loss = total_MB.neg().add_(math.log(n_draws))
        self.parts = log_weights.sub_(total_MB[:, None]).exp_()

    def weights(self, weight_MB: Tensor) -> Tensor:
        """Return each draw's weight, (M, K, B), in the gradient, given its record's in the mean loss."""
        return self.parts * weight_MB[:, None]

    def back(
        self, to_latents: Tensor, weight_MB: Tensor, by_name: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of posterior means and log-variances, given those of the draws by their
        decoding.

        The prior's go into ``by_name``.
        """
        to_draws, _ = self.mixture.back(self.weights(weight_MB).flatten(1), by_name)
        to_draws = to_draws.add_(to_latents).view(self.encoder.away.shape)
        to_log_variance = (to_draws * self.encoder.away).sum(dim=1).sub_(weight_MB[..., None]).mul_(0.5)
        return to_draws.sum(dim=1), to_log_variance


class _Mixture:
    """log Σ π_c exp(−KL(q ‖ N_c)) less half the posteriors' log-volumes, (M, B) nats, and its backward pass.

    mean, second: (M, B, Z) of the posteriors' first and second moments. Points z are posteriors without
    volume: log p(z) = total − ½ Z (1 + log 2π).
    """

    def __init__(self, prior: Mixture, mean: Tensor, second: Tensor) -> None:
        self.prior, self.mean, self.second = prior, mean, second
        log_std = prior.log_std.clamp(*LOG_STD)
        self.precision = (-2 * log_std).exp_()
        self.weighted = self.precision * prior.mean
        constant_MC = torch.addcmul(2 * log_std - 1, self.weighted, prior.mean).sum(dim=-1)
        self.shares = prior.logits.log_softmax(dim=-1)
        each_MBC = torch.baddbmm(self.shares - 0.5 * constant_MC[:, None], mean, self.weighted.mT)
        each_MBC.baddbmm_(second, self.precision.mT, alpha=-0.5)
        total_MB = each_MBC.logsumexp(dim=-1, keepdim=True)
        self.blame = each_MBC.sub_(total_MB).exp_()
        self.total = total_MB[..., 0]

    def back(self, charged: Tensor, by_name: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the gradient of the means, and the mean precision, given the weight (M, B) of each nat.

        The prior's gradients go into ``by_name``.
        """
        blame = self.blame.mul_(charged[..., None])
        n_MC1, first_MCZ = blame.sum(dim=1)[..., None], torch.bmm(blame.mT, self.mean)
        second_MCZ = torch.bmm(blame.mT, self.second)
        means = self.prior.mean
        by_name["prior.mean"] = (n_MC1 * means).sub_(first_MCZ).mul_(self.precision)
        spread = second_MCZ.addcmul_(means, n_MC1 * means - 2 * first_MCZ).mul_(self.precision)
        inside = (self.prior.log_std >= LOG_STD[0]) & (self.prior.log_std <= LOG_STD[1])
        by_name["prior.log_std"] = (n_MC1 - spread).mul_(inside)
        counts = n_MC1.mT
        by_name["prior.logits"] = self.shares.exp().mul_(counts.sum(dim=-1, keepdim=True)).sub_(counts)
        precision = torch.bmm(blame, self.precision)
        return torch.baddbmm(precision * self.mean, blame, self.weighted, alpha=-1), precision
