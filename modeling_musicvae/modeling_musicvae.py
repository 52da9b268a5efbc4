"""MusicVAE over drums: encoder, conductor, decoder and the model that joins them.

Roberts, Engel, Raffel, Hawthorne, Eck: A Hierarchical Latent Vector Model for Learning Long-Term
Structure in Music, 2018 (arXiv 1803.05428).
"""

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_musicvae import MusicVAEConfig
from .drum_attributes import ATTRIBUTES, measure_attributes
from .drum_patterns import to_hits
from .drum_transforms import apply_input_transform, drop_notes
from .latent_space import aggregate_gaussian, attribute_vectors, spherical_interpolation
from .lstm import DecoderLSTM, LSTMStepper, UnrolledLSTM
from .output_heads import OUTPUT_HEADS, KnownDrums, OutputHead

# The recipe that trains a model for each input transform.
RECIPES = {
    "none": "groove_4bar",
    "humanize": "humanize",
    "tap": "tap_to_drums",
    "remove_drums": "add_hihat",
}


@dataclass
class MusicVAEOutput(ModelOutput):
    """What `MusicVAEModel.forward` returns.

    Attributes:
        loss: float32 (), the negative ELBO: reconstruction loss + beta * KL divergence beyond the
            free bits, averaged over the batch, in nats per sequence.
        reconstruction_loss: float32 (batch,), in nats per sequence, summed over steps: the sum of
            the next three.
        hits_loss, velocity_loss, timing_loss: float32 (batch,), those of them that the output
            models.
        kl_divergence: float32 (batch,), of the posterior from the prior, in nats per sequence.
        logits: (batch, steps, logits_size), teacher-forced but for scheduled sampling; what they
            mean is the output head's business.
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
    """A bidirectional LSTM over the steps; its last states give the posterior, and its outputs, if
    the config says so, what the decoder is conditioned on at each step."""

    def __init__(self, config: MusicVAEConfig, input_size: int):
        super().__init__()
        self.lstm = nn.LSTM(
            input_size,
            config.encoder_hidden_size,
            config.encoder_num_layers,
            bidirectional=True,
        )
        self.mean = nn.Linear(2 * config.encoder_hidden_size, config.latent_size)
        self.std = nn.Linear(2 * config.encoder_hidden_size, config.latent_size)
        self.conditioning = None
        if size := config.encoder_conditioning_size:
            self.conditioning = nn.Linear(2 * config.encoder_hidden_size, size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, inputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """inputs (batch, steps, input_size) -> mean and std, float32 (batch, latent_size), and the
        decoder's conditioning (batch, steps, encoder_conditioning_size), or None."""
        outputs, (last_hidden, _) = self.lstm(inputs.transpose(0, 1).to(self.mean.weight.dtype))
        features = self.dropout(torch.cat([last_hidden[-2], last_hidden[-1]], -1))
        conditioning = None
        if self.conditioning is not None:
            conditioning = self.conditioning(self.dropout(outputs.transpose(0, 1)))
        return self.mean(features).float(), F.softplus(self.std(features).float()), conditioning


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
    """An autoregressive LSTM over the frames of a segment, given the segment's context.

    The segments are the bars, each with its embedding, in a hierarchical model; in a flat one
    there is one segment, the whole sequence, and its context is z. The state starts anew with each
    segment: the last frame and the look-back are all that crosses from one to the next. What a
    frame is, and how likely, is the business of the output head.

    The input of a step is the previous frame, what the step is conditioned on, and the look-back:
    the features of the frames at the same step of the `lookback_bars` bars before it, zeros before
    the start.
    """

    def __init__(self, config: MusicVAEConfig):
        super().__init__()
        hierarchical = config.decoder == "hierarchical"
        context_size = config.conductor_hidden_size if hierarchical else config.latent_size
        size, num_layers = config.decoder_hidden_size, config.decoder_num_layers
        self.segment_steps = config.num_steps // config.num_segments
        self.head = OUTPUT_HEADS[config.output](config)
        self.hits_are_given = config.hits_as_controls
        self.lookback_bars, self.steps_per_bar = config.lookback_bars, config.steps_per_bar
        binary_size = self.head.input_size + config.hits_as_controls * config.num_drums
        binary_size += config.input_as_controls * self.head.encoder_input_size
        read_size = binary_size + config.encoder_conditioning_size
        read_size += config.lookback_bars * self.head.num_features
        self.initial_state = InitialState(context_size, size, num_layers)
        self.lstm = DecoderLSTM(read_size, context_size, size, num_layers, binary_size)
        self.output = nn.Linear(size, self.head.logits_size)
        self.dropout, self.input_dropout = nn.Dropout(config.dropout), config.input_dropout

    def forward(
        self, contexts: torch.Tensor, frames: torch.Tensor, conditioning: torch.Tensor | None = None
    ) -> torch.Tensor:
        """All segments of the batch in parallel, what is read back being known.

        Args:
            contexts: (batch, segments, context_size).
            frames: (batch, steps, frame_size), what is read back: under teacher forcing, the truth.
            conditioning: (batch, steps, size), of each step, if the model has any.

        Returns:
            logits (batch, steps, logits_size).
        """
        contexts = contexts.flatten(0, 1)
        first = self.head.first(len(frames), frames.device)
        features = self._past_features(len(frames), None, frames.device)
        features = torch.cat([features, self.head.features(frames)], 1)
        features = self._drop_frames(features, features.new_zeros(()))
        steps = torch.arange(frames.shape[1], device=frames.device)
        previous = torch.cat([first[:, None], frames[:, :-1]], 1)
        previous = self._in_segments(self._drop_frames(previous, first[:, None]))
        numbers = self._in_segments(self._numbers(features, steps, conditioning))
        state = self.initial_state(contexts)
        if contexts.is_cuda:
            inputs = torch.cat([self.head.inputs(previous), numbers], -1)
            outputs = self.lstm(inputs, contexts, state)
        else:
            gates = self._input_gates(self.lstm.read_kernel(), previous, numbers)
            outputs = self.lstm.unroll(gates + self.lstm.context_gates(contexts), state)
        logits = self.output(self.dropout(outputs.transpose(0, 1)))
        return logits.reshape(*frames.shape[:2], -1)

    @torch.no_grad()
    def sample(
        self,
        contexts: torch.Tensor,
        temperature: float,
        uniform: torch.Tensor,
        conditioning: torch.Tensor | None = None,
        known: KnownDrums | None = None,
        history: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Draws frames step by step.

        Args:
            contexts: (batch, segments, context_size).
            temperature: see `OutputHead.sample`.
            uniform: float32 (steps, batch, num_draws), in [0, 1): what decides each draw.
            conditioning: see `forward`.
            known: what is given instead of drawn, with frames (batch, steps, frame_size).
            history: (batch, any, frame_size), the frames before the first step, for the look-back.

        Returns:
            (batch, steps, frame_size).
        """

        def draw(step: int, logits: torch.Tensor) -> torch.Tensor:
            given = None if known is None else known.at(step)
            return self.head.sample(logits, temperature, uniform[step], given)

        return self._run(contexts, draw, conditioning, history)

    @torch.no_grad()
    def mix(
        self,
        contexts: torch.Tensor,
        frames: torch.Tensor,
        probability: float,
        method: str,
        conditioning: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scheduled sampling: what is read back, the truth or with a probability a draw.

        Draws are constants: no gradient flows through them. So a teacher-forced pass over the
        mixture gives the loss and the gradients that running step by step would give.

        Args:
            contexts: (batch, segments, context_size).
            frames: (batch, steps, frame_size), the truth.
            probability: of a draw, for each step of each sequence.
            method: "exact" draws step by step, each time from what was read back until then;
                "parallel" draws all steps from a teacher-forced pass.
            conditioning: see `forward`.

        Returns:
            (batch, steps, frame_size).
        """
        batch_size, steps = frames.shape[:2]
        uniform = torch.rand(batch_size, steps, self.head.num_draws, device=frames.device)
        drawn = torch.rand(batch_size, steps, 1, device=frames.device) < probability

        def draw(logits: torch.Tensor, uniform: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
            known = KnownDrums.hits(truth, self.head.num_drums) if self.hits_are_given else None
            return self.head.sample(logits.float(), 1.0, uniform, known)

        if method == "parallel":
            logits = self.forward(contexts, frames, conditioning)
            draws = draw(*(each.flatten(0, 1) for each in (logits, uniform, frames)))
            return draws.view_as(frames).where(drawn, frames)

        def read_back(step: int, logits: torch.Tensor) -> torch.Tensor:
            draws = draw(logits, uniform[:, step], frames[:, step])
            return draws.where(drawn[:, step], frames[:, step])

        return self._run(contexts, read_back, conditioning)

    def _run(
        self,
        contexts: torch.Tensor,
        draw: Callable[[int, torch.Tensor], torch.Tensor],
        conditioning: torch.Tensor | None,
        history: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Runs step by step and reads back what `draw` makes of the logits of each step."""
        kernel, stepper = self.lstm.read_kernel(), LSTMStepper(self.lstm, len(contexts))
        previous, frames = self.head.first(len(contexts), contexts.device), []
        num_steps = contexts.shape[1] * self.segment_steps
        features = self._past_features(len(contexts), history, contexts.device)
        num_past = features.shape[1]
        features = F.pad(features, (0, 0, 0, num_steps))
        steps = torch.arange(num_steps, device=contexts.device)[:, None]
        with torch.autocast(contexts.device.type, enabled=False):  # the stepper has one dtype
            for context in contexts.to(kernel.dtype).unbind(1):
                stepper.start(self.initial_state(context))
                context_gates = self.lstm.context_gates(context)
                for _ in range(self.segment_steps):
                    step = len(frames)
                    numbers = self._numbers(features, steps[step], conditioning).squeeze(1)
                    gates = self._input_gates(kernel, previous, numbers)
                    logits = self.output(stepper.step(gates + context_gates))
                    previous = draw(step, logits.float())
                    if self.lookback_bars:
                        features[:, num_past + step] = self.head.features(previous)
                    frames.append(previous)
        return torch.stack(frames, 1)

    def _drop_frames(self, frames: torch.Tensor, silence: torch.Tensor) -> torch.Tensor:
        """In training, silence instead of some (batch, steps, size), see `input_dropout`."""
        if not self.training or self.input_dropout == 0:
            return frames
        dropped = torch.rand(*frames.shape[:2], 1, device=frames.device) < self.input_dropout
        return silence.where(dropped, frames)

    def _past_features(
        self, batch_size: int, history: torch.Tensor | None, device: torch.device
    ) -> torch.Tensor:
        """The features of the steps before the first that the look-back reaches, zeros where there
        is no history: float32 (batch, lookback_bars * steps_per_bar, num_features)."""
        num_steps = self.lookback_bars * self.steps_per_bar
        features = torch.zeros(batch_size, num_steps, self.head.num_features, device=device)
        if history is not None and num_steps:
            history = history[:, -num_steps:]
            features[:, num_steps - history.shape[1] :] = self.head.features(history)
        return features

    def _numbers(
        self, features: torch.Tensor, steps: torch.Tensor, conditioning: torch.Tensor | None
    ) -> torch.Tensor:
        """The decoder's input of some steps, but for the previous frame.

        Args:
            features: (batch, steps, num_features), those of the past first.
            steps: int64 (number,), from the first step after the past.
            conditioning: see `forward`.

        Returns:
            (batch, number, size): the conditioning, then the look-back, oldest first.
        """
        bars = torch.arange(self.lookback_bars, device=steps.device)
        lookback = features[:, steps[:, None] + self.steps_per_bar * bars].flatten(-2)
        return (
            lookback if conditioning is None else torch.cat([conditioning[:, steps], lookback], -1)
        )

    def _input_gates(
        self, kernel: torch.Tensor, previous: torch.Tensor, numbers: torch.Tensor
    ) -> torch.Tensor:
        gates = self.head.input_gates(previous, kernel)
        if numbers.shape[-1]:
            gates = gates + numbers.to(kernel.dtype) @ kernel[self.head.input_size : -1]
        return gates

    def _in_segments(self, steps: torch.Tensor) -> torch.Tensor:
        """(batch, steps, size) -> (segment_steps, batch * segments, size)."""
        return steps.unflatten(1, (-1, self.segment_steps)).flatten(0, 1).transpose(0, 1)


class PretrainedModelError(ValueError):
    """A model folder or repository that is not a whole MusicVAE."""


class MusicVAEPreTrainedModel(PreTrainedModel):
    config_class = MusicVAEConfig
    base_model_prefix = "musicvae"
    main_input_name = "piano_roll"
    # Older checkpoints have none.
    _keys_to_ignore_on_load_missing = [r"^(attribute_vectors|latent_mean|latent_scale)$"]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        config: PreTrainedConfig | str | os.PathLike | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> "MusicVAEPreTrainedModel | tuple[MusicVAEPreTrainedModel, dict[str, Any]]":
        """Loads a model as transformers does, but raises an error where that would warn and go on
        with random weights or a default config.

        Args:
            pretrained_model_name_or_path: a folder or the name of a repository on the Hub.
            config: instead of its own: a config, or a folder or repository that has one.
            ignore_mismatched_sizes: whether tensors start anew whose shapes are not those that the
                config asks for.
            output_loading_info: whether to return what transformers tells of loading as well.
            **kwargs: see `PreTrainedModel.from_pretrained`.

        Raises:
            PretrainedModelError: there is no config.json of a MusicVAE, or the weights are damaged
                or belong to another config.
            OSError: there is no such repository, or not for this token; there are no weights; or
                config.json is no JSON.
        """
        if not isinstance(config, PreTrainedConfig):
            place = pretrained_model_name_or_path if config is None else config
            cls.check_config_file(place, **kwargs)
        try:
            model, loading_info = super().from_pretrained(
                pretrained_model_name_or_path,
                *model_args,
                config=config,
                ignore_mismatched_sizes=True,  # checked below
                output_loading_info=True,
                **kwargs,
            )
        except SafetensorError as error:
            raise PretrainedModelError(
                f"{pretrained_model_name_or_path}: found damaged weights ({error}), expected a "
                "whole safetensors file"
            ) from error
        cls._check_weights(pretrained_model_name_or_path, loading_info, ignore_mismatched_sizes)
        return (model, loading_info) if output_loading_info else model

    @classmethod
    def check_config_file(cls, place: str | os.PathLike, **kwargs: Any) -> None:
        """Refuses another model's config.json, which transformers reads with a warning, and its
        absence, which stands for all defaults there.

        Args:
            place: a folder or the name of a repository on the Hub.
            **kwargs: those of `from_pretrained`.

        Raises:
            PretrainedModelError: there is no config.json, or not that of a MusicVAE.
        """
        names = ("cache_dir", "force_download", "local_files_only", "proxies", "revision")
        names += ("subfolder", "token")
        where = {name: kwargs[name] for name in names if name in kwargs}
        config, _ = cls.config_class.get_config_dict(place, **where)
        expected = cls.config_class.model_type
        model_type = config.get("model_type") if isinstance(config, dict) else None
        if model_type != expected:
            found = f"a config.json of model_type {model_type!r}" if config else "no config.json"
            raise PretrainedModelError(f"{place}: found {found}, expected one of {expected!r}")

    @staticmethod
    def _check_weights(
        place: str | os.PathLike | None,
        loading_info: dict[str, Any],
        ignore_mismatched_sizes: bool,
    ) -> None:
        """Refuses any but all the weights that the config asks for."""
        misfits = [f"no {name}" for name in sorted(loading_info["missing_keys"])]
        misfits += [f"an unknown {name}" for name in sorted(loading_info["unexpected_keys"])]
        if not ignore_mismatched_sizes:
            misfits += [
                f"{name} of shape {tuple(found)} instead of {tuple(expected)}"
                for name, found, expected in sorted(loading_info["mismatched_keys"])
            ]
        if misfits:
            more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
            raise PretrainedModelError(
                f"{place}: found weights with {', '.join(misfits[:3])}{more}, expected those of "
                "the config"
            )

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
        elif isinstance(module, nn.Embedding):
            init.zeros_(module.weight)
        elif hasattr(module, "w_enc"):
            init.xavier_uniform_(module.w_enc)
            init.xavier_uniform_(module.w_dec)
        elif hasattr(module, "attribute_vectors"):
            init.zeros_(module.attribute_vectors)
            init.zeros_(module.latent_mean)
            init.copy_(module.latent_scale, torch.eye(module.config.latent_size))
        elif isinstance(module, nn.LSTM):
            size, num_directions = module.hidden_size, 1 + module.bidirectional
            for index, (weight_ih, weight_hh, bias_ih, _) in enumerate(module.all_weights):
                bound = math.sqrt(6 / (weight_ih.shape[1] + 5 * size))
                init.uniform_(weight_ih, -bound, bound)
                init.uniform_(weight_hh, -bound, bound)
                forget_gate = torch.arange(4 * size, device=bias_ih.device) // size == 1
                init.copy_(bias_ih, forget_gate.to(bias_ih.dtype))
                if index < num_directions:
                    num_binary = getattr(module, "binary_size", module.input_size)
                    binary = torch.randn_like(weight_ih[:, :num_binary])
                    init.copy_(weight_ih, torch.cat([binary, weight_ih[:, num_binary:]], 1))


class MusicVAEModel(MusicVAEPreTrainedModel):
    """A variational autoencoder over windows of drums.

    `piano_roll` uint8 (batch, drums, steps), MIDI velocities, and `timing` float32 of the same
    shape, microtiming in steps in [-0.5, 0.5), are as `MusicVAEProcessor` makes them; without a
    `timing` the drums lie on the grid. Drums are always given as they were played: a model that
    was trained to humanize, say, takes velocity and timing away by itself before it reads them.
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
    ) -> MusicVAEOutput:
        """Encodes, draws latents, and scores the drums under the decoder.

        Args:
            piano_roll: uint8 (batch, drums, steps).
            timing: float32 (batch, drums, steps).
            latents: (batch, latent_size), decoded instead of a draw from the posterior.
            step: training step, which anneals beta and, in training mode, schedules sampling; if
                not given, beta is fully annealed, and the decoder teacher-forced.

        Raises:
            ValueError: an argument has the wrong shape or dtype.
        """
        piano_roll, timing = self._checked(piano_roll, timing)
        mean, std, encoder_conditioning = self._posterior(piano_roll, timing)
        conditioning = self._conditioning(piano_roll, timing, encoder_conditioning)
        if latents is None:
            latents = mean + std * torch.randn_like(std)
        elif latents.shape != mean.shape:
            raise ValueError(
                f"latents: found shape {tuple(latents.shape)}, expected {tuple(mean.shape)}"
            )
        frames = self.head.to_frames(piano_roll, timing)
        contexts, read_back = self._contexts(latents), frames
        probability = self._sampling_probability(step) if self.training else 0.0
        if probability > 0:
            read_back = self.decoder.mix(
                contexts, frames, probability, self.config.sampling_method, conditioning
            )
        logits = self.decoder(contexts, read_back, conditioning)
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
        rate = self.config.sampling_rate
        if step is None:
            return 0.0
        match self.config.sampling_schedule:
            case "constant":
                return rate
            case "exponential":
                return 1 - rate**step
            case "inverse_sigmoid":  # 1 - k / (k + exp(step / k)), which would overflow
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
        mean, std, _ = self._posterior(*self._checked(piano_roll, timing))
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
        piano_roll, timing = self._checked(piano_roll, timing)
        encoder_conditioning = None
        if self.config.encoder_conditioning_size:
            *_, encoder_conditioning = self._posterior(piano_roll, timing)
        score = piano_roll if self.config.hits_as_controls else None
        return score, self._conditioning(piano_roll, timing, encoder_conditioning)

    @can_return_tuple
    def decode(
        self,
        latents: torch.Tensor,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        score: torch.Tensor | None = None,
        conditioning: torch.Tensor | None = None,
        history: MusicVAEDecoderOutput | None = None,
    ) -> MusicVAEDecoderOutput:
        """Drums drawn from the decoder, step by step.

        Args:
            latents: (batch, latent_size).
            temperature: of the draws; 0 takes what is most likely at each step.
            generator: source of the draws. The same seed gives the same drums.
            score: uint8 (batch, drums, steps), a piano roll whose hits come out exactly, so that
                only their velocity and timing are drawn. A model that was trained with
                `hits_as_controls` needs one.
            conditioning: of each step, (batch, steps, size), as the method `conditioning` returns
                it next to the score. Models need it that are conditioned on drums; where these are
                the score's hits alone, it is made from the score if it is not given.
            history: the drums before these, any number of steps that ends with a bar, such as the
                output of an earlier call; the look-back sees them. Without it it sees silence.

        Raises:
            ValueError: an argument has the wrong shape or dtype, `temperature` is negative, or
                `score` or `conditioning` is missing.
        """
        if self.config.hits_as_controls:
            if score is None:
                raise ValueError(
                    "score: found none, expected the hits that this model, trained with "
                    "hits_as_controls, is conditioned on"
                )
            if conditioning is None:
                _, conditioning = self.conditioning(score)
        if conditioning is None and self.config.is_conditioned:
            raise ValueError(
                "conditioning: found none, expected what the model's method conditioning returns "
                "for the drums that it is conditioned on"
            )
        known = None if score is None else self._score(score)
        return self._decode(latents, temperature, generator, known, conditioning, history)

    @torch.no_grad()
    def _decode(
        self,
        latents: torch.Tensor,
        temperature: float,
        generator: torch.Generator | None,
        known: KnownDrums | None,
        conditioning: torch.Tensor | None,
        history: MusicVAEDecoderOutput | None = None,
    ) -> MusicVAEDecoderOutput:
        if latents.ndim != 2 or latents.shape[1] != self.config.latent_size:
            raise ValueError(
                f"latents: found shape {tuple(latents.shape)}, expected "
                f"(batch, {self.config.latent_size})"
            )
        if known is not None and len(known.frames) != len(latents):
            raise ValueError(
                f"score: found a batch of {len(known.frames)}, expected {len(latents)}"
            )
        if conditioning is not None and len(conditioning) != len(latents):
            raise ValueError(
                f"conditioning: found a batch of {len(conditioning)}, expected {len(latents)}"
            )
        if history is not None:
            past = self._checked(history.piano_roll, history.timing, "history", any_steps=True)
            history = self.head.to_frames(*past)
            if len(history) != len(latents):
                raise ValueError(
                    f"history: found a batch of {len(history)}, expected {len(latents)}"
                )
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature: found {temperature}, expected 0 or more")
        shape = (self.config.num_steps, len(latents), self.head.num_draws)
        uniform = _draw(torch.rand, shape, generator, self.device)
        contexts = self._contexts(latents)
        frames = self.decoder.sample(contexts, temperature, uniform, conditioning, known, history)
        piano_roll, timing = self.head.to_drums(frames)
        return MusicVAEDecoderOutput(piano_roll=piano_roll, timing=timing)

    @torch.no_grad()
    def most_likely(
        self, logits: torch.Tensor, score: torch.Tensor | None = None
    ) -> MusicVAEDecoderOutput:
        """The most likely drums at each step, by the logits (batch, steps, logits_size) of
        `forward`; see `decode` for `score`."""
        rows = logits.float().flatten(0, 1)
        known = None if score is None else self._score(score)
        if known is not None:
            known = known._replace(frames=known.frames.flatten(0, 1))
        uniform = rows.new_zeros(len(rows), self.head.num_draws)
        frames = self.head.sample(rows, 0, uniform, known).unflatten(0, logits.shape[:2])
        piano_roll, timing = self.head.to_drums(frames)
        return MusicVAEDecoderOutput(piano_roll=piano_roll, timing=timing)

    def sample(
        self,
        num_samples: int,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        score: torch.Tensor | None = None,
        conditioning: torch.Tensor | None = None,
        history: MusicVAEDecoderOutput | None = None,
    ) -> MusicVAEDecoderOutput:
        """New drums: latents drawn from the prior, or from what `fit_latent_distribution` has
        learned instead, and decoded; see `decode`."""
        if num_samples < 1:
            raise ValueError(f"num_samples: found {num_samples}, expected at least 1")
        shape = (num_samples, self.config.latent_size)
        latents = self.latents_of(_draw(torch.randn, shape, generator, self.device))
        return self.decode(latents, temperature, generator, score, conditioning, history)

    def latents_of(self, noise: torch.Tensor) -> torch.Tensor:
        """Latents that are distributed as the model's are, of noise that is standard normal.

        Args:
            noise: float32 (batch, latent_size).

        Returns:
            float32 (batch, latent_size); the noise itself, which is the prior's, unless
            `fit_latent_distribution` has learned something else.
        """
        return self.latent_mean.float() + noise @ self.latent_scale.float().T

    @torch.no_grad()
    def reconstruct(
        self,
        piano_roll: torch.Tensor,
        timing: torch.Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> MusicVAEDecoderOutput:
        """Drums decoded from the posterior mean of others; see `encode` and `decode`.

        The hits stay as they are in a model that was trained with `hits_as_controls`.
        """
        self._check_input_transform("reconstruct", "none")
        mean = self.encode(piano_roll, timing).mean
        return self.decode(mean, temperature, generator, *self.conditioning(piano_roll, timing))

    @torch.no_grad()
    def humanize(
        self,
        piano_roll: torch.Tensor,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> MusicVAEDecoderOutput:
        """The hits of a piano roll, exactly, with the velocity and timing of a drummer.

        The velocities of `piano_roll` are not read; see `decode`.
        """
        self._check_input_transform("humanize", "humanize")
        mean, (_, conditioning) = self.encode(piano_roll).mean, self.conditioning(piano_roll)
        return self.decode(mean, temperature, generator, piano_roll, conditioning)

    @torch.no_grad()
    def tap_to_drums(
        self,
        piano_roll: torch.Tensor,
        timing: torch.Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> MusicVAEDecoderOutput:
        """Drums for a tapped rhythm, on whichever drums it was tapped; see `decode`."""
        self._check_input_transform("tap_to_drums", "tap", "tap_fixed_velocity")
        mean = self.encode(piano_roll, timing).mean
        return self.decode(mean, temperature, generator, *self.conditioning(piano_roll, timing))

    @torch.no_grad()
    def add_drums(
        self,
        piano_roll: torch.Tensor,
        timing: torch.Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> MusicVAEDecoderOutput:
        """The drums that this model adds, `config.removed_drums`, played along with all others.

        Every other drum comes out exactly as it is given, and what is given of the added drums is
        not read; see `decode`.
        """
        self._check_input_transform("add_drums", "remove_drums")
        piano_roll, timing = self._checked(piano_roll, timing)
        kept = torch.ones(self.config.num_drums, dtype=torch.bool, device=piano_roll.device)
        kept[list(self.config.removed_drums)] = False
        mean = self.encode(piano_roll, timing).mean
        known = KnownDrums(self.head.to_frames(piano_roll, timing), kept, expression=True)
        _, conditioning = self.conditioning(piano_roll, timing)
        added = self._decode(mean, temperature, generator, known, conditioning)
        return MusicVAEDecoderOutput(
            piano_roll=piano_roll.where(kept[:, None], added.piano_roll),
            timing=timing.where(kept[:, None], added.timing),
        )

    @torch.no_grad()
    def transfer_groove(
        self,
        score: torch.Tensor,
        piano_roll: torch.Tensor,
        timing: torch.Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> MusicVAEDecoderOutput:
        """The hits of `score`, exactly, with the feel of other drums; see `decode`.

        Args:
            score: uint8 (batch, drums, steps); its velocities are not read.
            piano_roll, timing: drums as many as scores, or one for all of them.
        """
        self._check_input_transform("transfer_groove", "none")
        mean = self.encode(piano_roll, timing).mean
        if len(mean) == 1:
            mean = mean.expand(len(score), -1)
        return self.decode(mean, temperature, generator, score)

    @torch.no_grad()
    def interpolate(
        self,
        start: torch.Tensor,
        end: torch.Tensor,
        num_steps: int,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        start_timing: torch.Tensor | None = None,
        end_timing: torch.Tensor | None = None,
    ) -> MusicVAEDecoderOutput:
        """Drums along the great arc between the posterior means of two others; see `decode`.

        Args:
            start, end: piano rolls, uint8 (drums, steps).
            num_steps: drums to make, the reconstructions of both ends included.
            start_timing, end_timing: float32 (drums, steps).
        """
        ends = []
        for name, roll, timing in (("start", start, start_timing), ("end", end, end_timing)):
            roll, timing = self._checked(roll, timing, name, batch=())
            ends.append(self.encode(roll[None], timing[None]).mean[0])
        return self.decode(spherical_interpolation(*ends, num_steps), temperature, generator)

    @torch.no_grad()
    def fit_latent_distribution(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Learns, in one pass over drums, where their latents are, and `sample` draws from there.

        The prior is only near it, the less so the less the KL divergence weighs: it knows of no
        correlation between latents, so that what is drawn from it fits together less well. See
        `aggregate_gaussian`.

        The distribution is part of the model: it is saved and loaded with it.

        Args:
            batches: `piano_roll` and `timing` of each.
        """
        posteriors = (self.encode(*drums) for drums in batches)
        mean, scale = aggregate_gaussian((each.mean, each.std) for each in posteriors)
        self.latent_mean.copy_(mean)
        self.latent_scale.copy_(scale)

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
        if self.training and self.config.note_dropout > 0:
            piano_roll, timing = drop_notes(piano_roll, timing, self.config.note_dropout)
        inputs = apply_input_transform(self.config, piano_roll, timing)
        return self.encoder(self.head.encoder_inputs(*inputs))

    def _contexts(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents.to(self.dtype)
        if self.config.decoder == "hierarchical":
            return self.conductor(latents)
        return latents[:, None]

    def _score(self, score: torch.Tensor) -> KnownDrums:
        """All hits of a piano roll, without velocity and timing."""
        score, on_grid = self._checked(score, None, "score")
        return KnownDrums.hits(self.head.to_frames(score, on_grid), self.config.num_drums)

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

    def _checked(
        self,
        piano_roll: torch.Tensor,
        timing: torch.Tensor | None,
        name: str = "piano_roll",
        batch: tuple[str, ...] = ("batch",),
        any_steps: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Roll and timing, which is on the grid if there is none."""
        num_steps = "steps" if any_steps else self.config.num_steps
        shape = (*batch, self.config.num_drums, num_steps)
        found = (*piano_roll.shape[:-1], num_steps) if any_steps else piano_roll.shape
        if (
            piano_roll.dtype != torch.uint8
            or piano_roll.ndim != len(shape)
            or found[-2:] != shape[-2:]
        ):
            raise ValueError(
                f"{name}: found {piano_roll.dtype} {tuple(piano_roll.shape)}, expected "
                f"torch.uint8 ({', '.join(map(str, shape))})"
            )
        if timing is None:
            timing = torch.zeros_like(piano_roll, dtype=torch.float32)
        if timing.dtype != torch.float32 or timing.shape != piano_roll.shape:
            raise ValueError(
                f"{name}'s timing: found {timing.dtype} {tuple(timing.shape)}, expected "
                f"torch.float32 {tuple(piano_roll.shape)}"
            )
        return piano_roll, timing

    def _check_input_transform(self, verb: str, *expected: str) -> None:
        if self.config.input_transform not in expected:
            raise ValueError(
                f"{verb}: found a model trained with input_transform "
                f"{self.config.input_transform!r}, expected {' or '.join(map(repr, expected))}: "
                f"the recipe {RECIPES[expected[0]]} trains one"
            )


def _draw(distribution, shape, generator, device) -> torch.Tensor:
    """Random numbers drawn where the generator lives, so that a seed means the same everywhere."""
    source = generator.device if generator is not None else device
    return distribution(shape, generator=generator, device=source).to(device)
