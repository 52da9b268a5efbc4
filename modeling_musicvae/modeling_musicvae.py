"""MusicVAE over drums: encoder, conductor, decoder and the model that joins them.

Roberts, Engel, Raffel, Hawthorne, Eck: A Hierarchical Latent Vector Model for Learning Long-Term
Structure in Music, 2018 (arXiv 1803.05428).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_musicvae import MusicVAEConfig
from .drum_patterns import sample_patterns, to_hits, to_patterns, to_piano_roll
from .latent_space import spherical_interpolation
from .lstm import DecoderLSTM, LSTMStepper, UnrolledLSTM


@dataclass
class MusicVAEOutput(ModelOutput):
    """What `MusicVAEModel.forward` returns.

    Attributes:
        loss: float32 (), the negative ELBO: reconstruction loss + beta * KL divergence beyond the
            free bits, averaged over the batch, in nats per sequence.
        reconstruction_loss: float32 (batch,), in nats per sequence, summed over steps.
        kl_divergence: float32 (batch,), of the posterior from the prior, in nats per sequence.
        logits: (batch, steps, patterns), teacher-forced.
        mean: float32 (batch, latent_size), of the posterior.
        std: float32 (batch, latent_size), of the posterior.
        latents: float32 (batch, latent_size), those that were decoded.
    """

    loss: torch.FloatTensor | None = None
    reconstruction_loss: torch.FloatTensor | None = None
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


@dataclass
class MusicVAEDecoderOutput(ModelOutput):
    """New drums.

    Attributes:
        piano_roll: uint8 (batch, drums, steps), MIDI velocities.
        timing: float32 (batch, drums, steps), microtiming in steps.
    """

    piano_roll: torch.ByteTensor | None = None
    timing: torch.FloatTensor | None = None


class MusicVAEEncoder(nn.Module):
    """A bidirectional LSTM over the steps; its last states give the posterior."""

    def __init__(self, config: MusicVAEConfig):
        super().__init__()
        self.lstm = nn.LSTM(
            config.num_drums + 1,
            config.encoder_hidden_size,
            config.encoder_num_layers,
            bidirectional=True,
        )
        self.mean = nn.Linear(2 * config.encoder_hidden_size, config.latent_size)
        self.std = nn.Linear(2 * config.encoder_hidden_size, config.latent_size)

    def forward(self, hits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """hits bool (batch, steps, drums) -> mean and std, float32 (batch, latent_size)."""
        silent = ~hits.any(-1, keepdim=True)
        inputs = torch.cat([hits, silent], -1).transpose(0, 1).to(self.mean.weight.dtype)
        _, (last_hidden, _) = self.lstm(inputs)
        features = torch.cat([last_hidden[-2], last_hidden[-1]], -1)
        return self.mean(features).float(), F.softplus(self.std(features).float())


class InitialState(nn.Module):
    """The state in which an LSTM starts, from what it is to say."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int):
        super().__init__()
        self.shape = (num_layers, 2, hidden_size)
        self.projection = nn.Linear(input_size, math.prod(self.shape))

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, input_size) -> hidden and cell, each (layers, batch, hidden_size)."""
        state = torch.tanh(self.projection(inputs)).unflatten(-1, self.shape)
        cell, hidden = state.permute(2, 1, 0, 3)
        return hidden.contiguous(), cell.contiguous()


class MusicVAEConductor(nn.Module):
    """An LSTM that unfolds a latent into one embedding a bar. It reads nothing but its state."""

    def __init__(self, config: MusicVAEConfig):
        super().__init__()
        self.bars = config.bars
        size, num_layers = config.conductor_hidden_size, config.conductor_num_layers
        self.initial_state = InitialState(config.latent_size, size, num_layers)
        self.lstm = UnrolledLSTM(1, size, num_layers)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """latents (batch, latent_size) -> embeddings (batch, bars, conductor_hidden_size)."""
        silence = latents.new_zeros(self.bars, len(latents), 1)
        return self.lstm(silence, self.initial_state(latents)).transpose(0, 1)


class MusicVAEDecoder(nn.Module):
    """An autoregressive LSTM over the patterns of a segment, given the segment's context.

    The segments are the bars, each with its embedding, in a hierarchical model; in a flat one
    there is one segment, the whole sequence, and its context is z. The state starts anew with each
    segment: the last pattern is all that crosses from one to the next.
    """

    def __init__(self, config: MusicVAEConfig):
        super().__init__()
        hierarchical = config.decoder == "hierarchical"
        context_size = config.conductor_hidden_size if hierarchical else config.latent_size
        size, num_layers = config.decoder_hidden_size, config.decoder_num_layers
        self.segment_steps = config.num_steps // config.num_segments
        self.num_patterns = config.num_patterns
        self.initial_state = InitialState(context_size, size, num_layers)
        self.lstm = DecoderLSTM(config.num_patterns, context_size, size, num_layers)
        self.output = nn.Linear(size, config.num_patterns)

    def forward(self, contexts: torch.Tensor, patterns: torch.Tensor) -> torch.Tensor:
        """Teacher forcing: all segments of the batch in parallel.

        Args:
            contexts: (batch, segments, context_size).
            patterns: int64 (batch, steps), the targets.

        Returns:
            logits (batch, steps, patterns).
        """
        contexts = contexts.flatten(0, 1)
        previous = F.pad(patterns[:, :-1], (1, 0), value=self.num_patterns)
        previous = previous.reshape(-1, self.segment_steps).T
        outputs = self.lstm(previous, contexts, self.initial_state(contexts))
        return self.output(outputs.transpose(0, 1)).reshape(*patterns.shape, -1)

    def sample(
        self, contexts: torch.Tensor, temperature: float, uniform: torch.Tensor
    ) -> torch.Tensor:
        """Draws patterns step by step, without autograd.

        Args:
            contexts: (batch, segments, context_size).
            temperature: see `sample_patterns`.
            uniform: float32 (steps, batch), in [0, 1): what decides each draw.

        Returns:
            int64 (batch, steps).
        """
        pattern_gates, stepper = self.lstm.pattern_gates(), LSTMStepper(self.lstm, len(contexts))
        previous = contexts.new_full((len(contexts),), self.num_patterns, dtype=torch.long)
        patterns = []
        for context in contexts.unbind(1):
            stepper.start(self.initial_state(context))
            context_gates = self.lstm.context_gates(context)
            for _ in range(self.segment_steps):
                logits = self.output(stepper.step(pattern_gates[previous] + context_gates))
                previous = sample_patterns(logits.float(), temperature, uniform[len(patterns)])
                patterns.append(previous)
        return torch.stack(patterns, 1)


class MusicVAEPreTrainedModel(PreTrainedModel):
    config_class = MusicVAEConfig
    base_model_prefix = "musicvae"
    main_input_name = "piano_roll"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Starts weights uniform after Glorot, for an LSTM over its input and recurrent weight
        together, and forget gates open.

        What an LSTM reads first, hits or a one-hot pattern, is zero almost everywhere. Its weights
        start with the unit variance of an embedding: after Glorot, as in the original, they would
        be so small that it takes thousands of steps until the model sees what it reads.
        """
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.LSTM):
            size, num_directions = module.hidden_size, 1 + module.bidirectional
            for index, (weight_ih, weight_hh, bias_ih, _) in enumerate(module.all_weights):
                bound = math.sqrt(6 / (weight_ih.shape[1] + 5 * size))
                init.uniform_(weight_ih, -bound, bound)
                init.uniform_(weight_hh, -bound, bound)
                forget_gate = torch.arange(4 * size, device=bias_ih.device) // size == 1
                init.copy_(bias_ih, forget_gate.to(bias_ih.dtype))
                if index < num_directions:
                    num_binary = getattr(module, "num_patterns", module.input_size)
                    binary = torch.randn_like(weight_ih[:, :num_binary])
                    init.copy_(weight_ih, torch.cat([binary, weight_ih[:, num_binary:]], 1))


class MusicVAEModel(MusicVAEPreTrainedModel):
    """A variational autoencoder over windows of drums.

    `piano_roll` and `timing` are as `MusicVAEProcessor` makes them; this model reads and makes
    hits alone, so it ignores `timing`, and its drums come out on the grid and equally loud.
    """

    def __init__(self, config: MusicVAEConfig):
        super().__init__(config)
        self.encoder = MusicVAEEncoder(config)
        if config.decoder == "hierarchical":
            self.conductor = MusicVAEConductor(config)
        self.decoder = MusicVAEDecoder(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        piano_roll: torch.Tensor,
        timing: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        step: int | None = None,
    ) -> MusicVAEOutput:
        """Encodes, draws latents, and scores the drums under the teacher-forced decoder.

        Args:
            piano_roll: uint8 (batch, drums, steps).
            timing: float32 (batch, drums, steps).
            latents: (batch, latent_size), decoded instead of a draw from the posterior.
            step: training step, which anneals beta; fully annealed if not given.

        Raises:
            ValueError: `piano_roll` has the wrong shape or dtype, or `latents` the wrong shape.
        """
        hits = self._hits(piano_roll)
        mean, std = self.encoder(hits)
        if latents is None:
            latents = mean + std * torch.randn_like(std)
        elif latents.shape != mean.shape:
            raise ValueError(
                f"latents: found shape {tuple(latents.shape)}, expected {tuple(mean.shape)}"
            )
        patterns = to_patterns(hits)
        logits = self.decoder(self._contexts(latents), patterns)
        step_losses = F.cross_entropy(
            logits.flatten(0, 1).float(), patterns.flatten(), reduction="none"
        )
        reconstruction_loss = step_losses.view_as(patterns).sum(-1)
        kl_divergence = 0.5 * (mean**2 + std**2 - 1 - 2 * std.log()).sum(-1)
        costly_kl = F.relu(kl_divergence - self.config.free_bits * math.log(2))
        loss = reconstruction_loss.mean() + self._beta(step) * costly_kl.mean()
        return MusicVAEOutput(
            loss=loss,
            reconstruction_loss=reconstruction_loss,
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

    @can_return_tuple
    def encode(
        self, piano_roll: torch.Tensor, timing: torch.Tensor | None = None
    ) -> MusicVAEEncoderOutput:
        """The posterior over the latents of drums.

        Args:
            piano_roll: uint8 (batch, drums, steps).
            timing: float32 (batch, drums, steps).

        Raises:
            ValueError: `piano_roll` has the wrong shape or dtype.
        """
        mean, std = self.encoder(self._hits(piano_roll))
        return MusicVAEEncoderOutput(mean=mean, std=std)

    @can_return_tuple
    @torch.no_grad()
    def decode(
        self,
        latents: torch.Tensor,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> MusicVAEDecoderOutput:
        """Drums drawn from the decoder, step by step.

        Args:
            latents: (batch, latent_size).
            temperature: of the draws; 0 takes the most likely pattern at each step.
            generator: source of the draws. The same seed gives the same drums.

        Raises:
            ValueError: `latents` has the wrong shape, or `temperature` is negative.
        """
        if latents.ndim != 2 or latents.shape[1] != self.config.latent_size:
            raise ValueError(
                f"latents: found shape {tuple(latents.shape)}, expected "
                f"(batch, {self.config.latent_size})"
            )
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature: found {temperature}, expected 0 or more")
        uniform = _draw(torch.rand, (self.config.num_steps, len(latents)), generator, self.device)
        patterns = self.decoder.sample(self._contexts(latents), temperature, uniform)
        piano_roll = to_piano_roll(patterns, self.config.num_drums)
        timing = torch.zeros_like(piano_roll, dtype=torch.float32)
        return MusicVAEDecoderOutput(piano_roll=piano_roll, timing=timing)

    def sample(
        self,
        num_samples: int,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> MusicVAEDecoderOutput:
        """New drums: latents from the prior, decoded; see `decode`."""
        if num_samples < 1:
            raise ValueError(f"num_samples: found {num_samples}, expected at least 1")
        shape = (num_samples, self.config.latent_size)
        latents = _draw(torch.randn, shape, generator, self.device)
        return self.decode(latents, temperature, generator)

    @torch.no_grad()
    def reconstruct(
        self,
        piano_roll: torch.Tensor,
        timing: torch.Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> MusicVAEDecoderOutput:
        """Drums decoded from the posterior mean of others; see `encode` and `decode`."""
        mean, _ = self.encoder(self._hits(piano_roll))
        return self.decode(mean, temperature, generator)

    @torch.no_grad()
    def interpolate(
        self,
        start: torch.Tensor,
        end: torch.Tensor,
        num_steps: int,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> MusicVAEDecoderOutput:
        """Drums along the great arc between the posterior means of two others; see `decode`.

        Args:
            start, end: piano rolls, uint8 (drums, steps).
            num_steps: drums to make, the reconstructions of both ends included.
        """
        self._check_piano_roll("start", start, ndim=2)
        self._check_piano_roll("end", end, ndim=2)
        means, _ = self.encoder(to_hits(torch.stack([start, end])))
        latents = spherical_interpolation(*means, num_steps)
        return self.decode(latents, temperature, generator)

    def _contexts(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents.to(self.dtype)
        if self.config.decoder == "hierarchical":
            return self.conductor(latents)
        return latents[:, None]

    def _hits(self, piano_roll: torch.Tensor) -> torch.Tensor:
        self._check_piano_roll("piano_roll", piano_roll, ndim=3)
        return to_hits(piano_roll)

    def _check_piano_roll(self, name: str, piano_roll: torch.Tensor, ndim: int):
        expected = (self.config.num_drums, self.config.num_steps)
        if (
            piano_roll.dtype != torch.uint8
            or piano_roll.ndim != ndim
            or piano_roll.shape[-2:] != expected
        ):
            batch = "batch, " if ndim == 3 else ""
            raise ValueError(
                f"{name}: found {piano_roll.dtype} {tuple(piano_roll.shape)}, expected "
                f"torch.uint8 ({batch}{expected[0]}, {expected[1]})"
            )


def _draw(distribution, shape, generator, device) -> torch.Tensor:
    """Random numbers drawn where the generator lives, so that a seed means the same everywhere."""
    source = generator.device if generator is not None else device
    return distribution(shape, generator=generator, device=source).to(device)
