"""MusicVAE over drums: the model that joins encoder, conductor and decoder.

Roberts, Engel, Raffel, Hawthorne, Eck: A Hierarchical Latent Vector Model for Learning Long-Term
Structure in Music, 2018 (arXiv 1803.05428).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_musicvae import MusicVAEConfig
from .drum_attributes import ATTRIBUTES, measure_attributes
from .drum_patterns import to_hits
from .drum_transforms import apply_input_transform, drop_hits
from .generation_musicvae import MusicVAEVerbs
from .latent_space import (
    KERNEL_WIDTH,
    STYLE_KERNELS,
    aggregate_gaussian,
    attribute_vectors,
    kernel_centers,
)
from .modules_musicvae import MusicVAEConductor, MusicVAEDecoder, MusicVAEEncoder
from .output_heads import OutputHead
from .pretrained_musicvae import MusicVAEPreTrainedModel


@dataclass
class MusicVAEOutput(ModelOutput):
    """The output of `MusicVAEModel.forward`.

    Attributes:
        loss: float32 (), the negative ELBO: reconstruction loss + beta * KL divergence beyond the
            free bits, averaged over the batch, in nats per sequence.
        reconstruction_loss: float32 (batch,), in nats per sequence, summed over steps: the sum of
            the next three.
        hits_loss, velocity_loss, timing_loss: float32 (batch,), those of them that the output
            models.
        kl_divergence: float32 (batch,), of the posterior from the prior, in nats per sequence.
        logits: (batch, steps, logits_size), teacher-forced but for scheduled sampling; see the
            output head.
        mean: float32 (batch, latent_size), of the posterior.
        std: float32 (batch, latent_size), of the posterior.
        latents: float32 (batch, latent_size), those that were decoded.
    """

    loss: torch.FloatTensor | None = None
    reconstruction_loss: torch.FloatTensor | None = None
    hits_loss: torch.FloatTensor | None = None
    velocity_loss: torch.FloatTensor | None = None
    timing_loss: torch.FloatTensor | None = None
    kl_divergence: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    mean: torch.FloatTensor | None = None
    std: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None


@dataclass
class MusicVAEEncoderOutput(ModelOutput):
    """The posterior over latents.

    Attributes:
        mean: float32 (batch, latent_size).
        std: float32 (batch, latent_size).
    """

    mean: torch.FloatTensor | None = None
    std: torch.FloatTensor | None = None


class MusicVAEModel(MusicVAEVerbs, MusicVAEPreTrainedModel):
    """A variational autoencoder over windows of drums.

    `piano_roll` uint8 (batch, drums, steps), MIDI velocities, and `timing` float32 of the same
    shape, microtiming in steps in [-0.5, 0.5), are as `MusicVAEProcessor` makes them; without a
    `timing` the drums lie on the grid. Drums are always given whole: a model that was trained
    to humanize, say, takes velocity and timing away from its encoder's input by itself.
    """

    def __init__(self, config: MusicVAEConfig):
        super().__init__(config)
        self.decoder = MusicVAEDecoder(config)
        self.encoder = MusicVAEEncoder(config, self.head.encoder_input_size)
        if config.decoder == "hierarchical":
            self.conductor = MusicVAEConductor(config)
        size = config.latent_size
        # Learned when training is over; buffers, so that they are saved with the weights.
        self.register_buffer("attribute_vectors", torch.zeros(len(ATTRIBUTES), size))
        self.register_buffer("latent_mean", torch.zeros(size))
        self.register_buffer("latent_scale", torch.eye(size))
        if config.latent_kernels:
            self.register_buffer("kernel_centers", torch.zeros(config.latent_kernels, size))
        if config.styles:
            number = len(config.styles)
            self.register_buffer("style_centers", torch.zeros(number, STYLE_KERNELS, size))
        self.post_init()

    @property
    def head(self) -> OutputHead:
        return self.decoder.head

    @can_return_tuple
    def forward(
        self,
        piano_roll: torch.Tensor,
        timing: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        step: int | None = None,
        bpm: torch.Tensor | None = None,
        start_bar: torch.Tensor | None = None,
        file_index: torch.Tensor | None = None,
    ) -> MusicVAEOutput:
        """Encodes, draws latents, and scores the drums under the decoder.

        Args:
            piano_roll: uint8 (batch, drums, steps).
            timing: float32 (batch, drums, steps).
            latents: (batch, latent_size), decoded instead of a draw from the posterior.
            step: training step, which anneals beta and, in training mode, schedules sampling; if
                not given, beta is fully annealed, and the decoder teacher-forced.
            bpm, start_bar, file_index: not used; accepted, so that all that a processor returns can
                be passed on.

        Raises:
            ValueError: an argument has the wrong shape or dtype, or timing lies out of range.
        """
        piano_roll, timing = self._check_drums(piano_roll, timing)
        mean, std, encoder_conditioning = self._posterior(piano_roll, timing)
        conditioning = self._conditioning(piano_roll, timing, encoder_conditioning)
        if latents is None:
            latents = mean + std * torch.randn_like(std)
        elif latents.shape != mean.shape:
            raise ValueError(
                f"latents: found shape {tuple(latents.shape)}, expected {tuple(mean.shape)}"
            )
        frames = self.head.to_frames(piano_roll, timing)
        contexts, inputs = self._contexts(latents), frames
        probability = self._sampling_probability(step) if self.training else 0.0
        if probability > 0:
            inputs = self.decoder.scheduled_sampling(contexts, frames, probability, conditioning)
        logits = self.decoder(contexts, inputs, conditioning)
        losses = dict(
            zip(self.head.terms, -self.head.log_likelihood(logits, frames).sum(1).T, strict=True)
        )
        if self.config.hits_as_controls:
            del losses["hits"]  # which are given
        reconstruction_loss = sum(losses.values())
        kl_divergence = 0.5 * (mean**2 + std**2 - 1 - 2 * std.log()).sum(-1)
        costly_kl = F.relu(kl_divergence - self.config.free_bits * math.log(2))
        return MusicVAEOutput(
            loss=reconstruction_loss.mean() + self._beta(step) * costly_kl.mean(),
            reconstruction_loss=reconstruction_loss,
            **{f"{term}_loss": loss for term, loss in losses.items()},
            kl_divergence=kl_divergence,
            logits=logits,
            mean=mean,
            std=std,
            latents=latents,
        )

    def _beta(self, step: int | None) -> float:
        if step is None:
            return self.config.max_beta
        return self.config.max_beta * (1 - self.config.beta_rate**step)

    def _sampling_probability(self, step: int | None) -> float:
        rate = self.config.scheduled_sampling_rate
        if step is None:
            return 0.0
        match self.config.scheduled_sampling_schedule:
            case "constant":
                return rate
            case "exponential":
                return 1 - rate**step
            case _:  # inverse_sigmoid: 1 - k / (k + exp(step / k)), which would overflow
                return 1 / (1 + rate * math.exp(-step / rate))

    @can_return_tuple
    def encode(
        self, piano_roll: torch.Tensor, timing: torch.Tensor | None = None
    ) -> MusicVAEEncoderOutput:
        """The posterior over the latents of drums.

        Args:
            piano_roll: uint8 (batch, drums, steps).
            timing: float32 (batch, drums, steps).

        Raises:
            ValueError: an argument has the wrong shape or dtype.
        """
        mean, std, _ = self._posterior(*self._check_drums(piano_roll, timing))
        return MusicVAEEncoderOutput(mean=mean, std=std)

    @torch.no_grad()
    def conditioning(
        self, piano_roll: torch.Tensor, timing: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The score and the conditioning, for `decode`, that a model takes from drums.

        Args:
            piano_roll: uint8 (batch, drums, steps).
            timing: float32 (batch, drums, steps).

        Returns:
            The score, `piano_roll` for a model that was trained with `hits_as_controls`, and what
            the decoder is conditioned on at each step, float (batch, steps, size). Each is None
            for a model without it.

        Raises:
            ValueError: an argument has the wrong shape or dtype.
        """
        piano_roll, timing = self._check_drums(piano_roll, timing)
        encoder_conditioning = None
        if self.config.encoder_conditioning_size:
            *_, encoder_conditioning = self._posterior(piano_roll, timing)
        score = piano_roll if self.config.hits_as_controls else None
        return score, self._conditioning(piano_roll, timing, encoder_conditioning)

    @torch.no_grad()
    def fit_latent_distribution(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Learns, in one pass over drums, where their latents are, and `sample` draws from there.

        The prior is only near it, the less so the less the KL divergence weighs: it knows of no
        correlation between latents, and of no clusters, so that what is drawn from it fits together
        less well. See `aggregate_gaussian`, and `kernel_centers` where `config.latent_kernels` is
        not 0.

        The distribution is part of the model: it is saved and loaded with it.

        Args:
            batches: `piano_roll` and `timing` of each; some thousand windows are enough, whose
                latents are held at once.
        """
        posteriors = [self.encode(*drums) for drums in batches]
        mean, scale = aggregate_gaussian((each.mean, each.std) for each in posteriors)
        if number := self.config.latent_kernels:
            means = torch.cat([each.mean for each in posteriors])
            self.kernel_centers.copy_(kernel_centers(means, number, mean.to(means)))
            scale = KERNEL_WIDTH * scale
        self.latent_mean.copy_(mean)
        self.latent_scale.copy_(scale)

    @torch.no_grad()
    def fit_style_distributions(
        self,
        batches: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
        styles: Sequence[str],
    ) -> None:
        """Learns, in one pass over drums, where the latents of each style are, and `sample` draws
        from there if it is asked for that style.

        A style has kernels of its own, as wide as the model's. So call `fit_latent_distribution`
        first. The names are in the config.

        Args:
            batches: `piano_roll`, `timing` and, int64 (batch,), the number of the style of each
                window in `styles`; -1: none of them. Latents are held at once.
            styles: names; each has at least one window.

        Raises:
            ValueError: a style has no windows, `styles` are not different names, or the model has
                no kernels.
        """
        if not self.config.latent_kernels:
            raise ValueError("latent_kernels: found 0, expected some, to learn styles")
        means: list[list[torch.Tensor]] = [[] for _ in styles]
        for piano_roll, timing, numbers in batches:
            mean = self.encode(piano_roll, timing).mean
            for number, own in enumerate(means):
                own.append(mean[numbers == number])
        if missing := [s for s, own in zip(styles, means, strict=True) if not sum(map(len, own))]:
            raise ValueError(f"styles: found no windows of {missing}, expected some of each")
        centers = [kernel_centers(torch.cat(own), STYLE_KERNELS, self.latent_mean) for own in means]
        self.config.styles = list(styles)
        self.register_buffer("style_centers", torch.stack(centers).to(self.latent_mean))

    @torch.no_grad()
    def fit_attribute_vectors(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Learns, in one pass over drums, where in latent space each of `ATTRIBUTES` grows.

        The vectors are part of the model: they are saved and loaded with it.

        Args:
            batches: `piano_roll` and `timing` of each.
        """
        pairs = (
            (
                self.encode(piano_roll, timing).mean,
                measure_attributes(piano_roll, timing, self.config.steps_per_bar),
            )
            for piano_roll, timing in batches
        )
        self.attribute_vectors.copy_(attribute_vectors(pairs))

    def add_attribute(
        self, latents: torch.Tensor, attribute: str, strength: float = 1.0
    ) -> torch.Tensor:
        """Latents of drums that have more of an attribute, or less.

        Args:
            latents: (batch, latent_size).
            attribute: one of `ATTRIBUTES`.
            strength: how much more, in standard deviations of the drums that the vectors were
                learned from; negative for less.

        Returns:
            (batch, latent_size).

        Raises:
            ValueError: there is no such attribute, or no vector for it.
        """
        if attribute not in ATTRIBUTES:
            raise ValueError(f"attribute: found {attribute!r}, expected one of {list(ATTRIBUTES)}")
        vector = self.attribute_vectors[list(ATTRIBUTES).index(attribute)]
        if not vector.any():
            raise ValueError(
                f"attribute: found no vector for {attribute!r}, expected one learned by "
                "fit_attribute_vectors from drums that differ in it"
            )
        return latents + strength * vector

    def _posterior(
        self, piano_roll: torch.Tensor, timing: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Mean and std, and the encoder's part of the decoder's conditioning."""
        if self.training and self.config.encoder_hit_dropout > 0:
            piano_roll, timing = drop_hits(piano_roll, timing, self.config.encoder_hit_dropout)
        inputs = apply_input_transform(self.config, piano_roll, timing)
        return self.encoder(self.head.encoder_inputs(*inputs))

    def _contexts(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents.to(self.dtype)
        if self.config.decoder == "hierarchical":
            return self.conductor(latents)
        return latents[:, None]

    def _conditioning(
        self,
        piano_roll: torch.Tensor,
        timing: torch.Tensor,
        encoder_conditioning: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """All that the decoder is conditioned on at each step, (batch, steps, size)."""
        parts = [to_hits(piano_roll)] if self.config.hits_as_controls else []
        if self.config.input_as_controls:
            drums = apply_input_transform(self.config, piano_roll, timing)
            parts.append(self.head.encoder_inputs(*drums))
        if encoder_conditioning is not None:
            parts.append(encoder_conditioning)
        return torch.cat(parts, -1) if parts else None

    def _check_drums(
        self,
        piano_roll: torch.Tensor,
        timing: torch.Tensor | None,
        name: str = "piano_roll",
        batch: tuple[str, ...] = ("batch",),
        any_bars: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Roll and timing as tensors; the timing is on the grid if there is none.

        Args:
            piano_roll, timing: tensors, or arrays such as a processor returns.
            name: of the piano roll, for errors.
            batch: names of the axes before drums and steps.
            any_bars: whether there may be any number of whole bars, not only a window's.
        """
        piano_roll = torch.as_tensor(piano_roll, device=self.device)
        if piano_roll.dtype == torch.int64:  # as `datasets` hands out what it stores as uint8
            invalid = (piano_roll < 0) | (piano_roll > 127)
            if invalid.any():
                velocity = piano_roll[invalid][0].item()
                raise ValueError(f"{name}: found velocity {velocity}, expected 0 to 127")
            piano_roll = piano_roll.to(torch.uint8)
        num_drums, num_steps = self.config.num_drums, self.config.num_steps
        unit = self.config.steps_per_bar if any_bars else num_steps
        steps = piano_roll.shape[-1] if piano_roll.ndim else 0
        whole = steps > 0 and steps % unit == 0 if any_bars else steps == num_steps
        shape = (*batch, num_drums, f"whole bars of {unit}" if any_bars else num_steps)
        if (
            piano_roll.dtype != torch.uint8
            or piano_roll.ndim != len(shape)
            or piano_roll.shape[-2] != num_drums
            or not whole
        ):
            raise ValueError(
                f"{name}: found {piano_roll.dtype} {tuple(piano_roll.shape)}, expected "
                f"torch.uint8 ({', '.join(map(str, shape))})"
            )
        if timing is None:
            timing = torch.zeros_like(piano_roll, dtype=torch.float32)
        timing = torch.as_tensor(timing, device=self.device)
        if timing.dtype != torch.float32 or timing.shape != piano_roll.shape:
            raise ValueError(
                f"{name}'s timing: found {timing.dtype} {tuple(timing.shape)}, expected "
                f"torch.float32 {tuple(piano_roll.shape)}"
            )
        invalid = ~((timing >= -0.5) & (timing < 0.5))  # NaN too
        if invalid.any():
            raise ValueError(
                f"{name}'s timing: found {timing[invalid][0].item()}, expected -0.5 to 0.5 steps, "
                "without 0.5"
            )
        return piano_roll, timing
