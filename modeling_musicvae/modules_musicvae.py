"""The parts of a MusicVAE: encoder, conductor and decoder."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_musicvae import MusicVAEConfig
from .decoding_step import DecodingStep
from .lstm import DecoderLSTM, UnrolledLSTM
from .output_heads import OUTPUT_HEADS, FixedDrums


class MusicVAEEncoder(nn.Module):
    """A bidirectional LSTM over the steps; its last states give the posterior, and its outputs, if
    the config says so, the decoder's conditioning at each step."""

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
        return self.posterior(outputs, last_hidden)

    def posterior(
        self, outputs: torch.Tensor, last_hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """`forward` from what the LSTM returns: outputs (steps, batch, 2 * hidden_size) and last
        hidden states (2 * layers, batch, hidden_size)."""
        features = self.dropout(torch.cat([last_hidden[-2], last_hidden[-1]], -1))
        conditioning = None
        if self.conditioning is not None:
            conditioning = self.conditioning(self.dropout(outputs.transpose(0, 1)))
        return self.mean(features).float(), F.softplus(self.std(features).float()), conditioning


class InitialState(nn.Module):
    """The state in which an LSTM starts, as a function of its context."""

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
    """An LSTM that unfolds a latent into one embedding a bar. It has no input but its state."""

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
    segment: the previous frame and the look-back are all that crosses from one to the next. What a
    frame is, and how likely, is the business of the output head.

    The decoder's input at a step is the previous frame, what the step is conditioned on, and the
    look-back: the features of the frames at the same step of the `lookback_bars` bars before it,
    zeros before the start.
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
        input_size = binary_size + config.encoder_conditioning_size
        input_size += config.lookback_bars * self.head.num_features
        self.initial_state = InitialState(context_size, size, num_layers)
        self.lstm = DecoderLSTM(input_size, context_size, size, num_layers, binary_size)
        self.output = nn.Linear(size, self.head.logits_size)
        self.dropout, self.input_dropout = nn.Dropout(config.dropout), config.input_dropout
        self._step: tuple[tuple, DecodingStep] | None = None  # see `decoding_step`

    def forward(
        self, contexts: torch.Tensor, frames: torch.Tensor, conditioning: torch.Tensor | None = None
    ) -> torch.Tensor:
        """All segments of the batch in parallel, the frames being known.

        Args:
            contexts: (batch, segments, context_size).
            frames: (batch, steps, frame_size); under teacher forcing, the targets.
            conditioning: (batch, steps, size), of each step, if the model has any.

        Returns:
            logits (batch, steps, logits_size).
        """
        contexts = contexts.flatten(0, 1)
        initial = self.head.initial_frame(len(frames), frames.device)[:, None]
        features = self._past_features(len(frames), None, frames.device)
        features = torch.cat([features, self.head.features(frames)], 1)
        features = self._drop_frames(features, features.new_zeros(()))
        steps = torch.arange(frames.shape[1], device=frames.device)
        previous = self._drop_frames(torch.cat([initial, frames[:, :-1]], 1), initial)
        previous = self._in_segments(previous)
        dense = self._in_segments(self._dense_inputs(features, steps, conditioning))
        state = self.initial_state(contexts)
        if contexts.is_cuda:
            inputs = torch.cat([self.head.decoder_inputs(previous), dense], -1)
            outputs = self.lstm(inputs, contexts, state)
        else:
            gates = self._input_gates(self.lstm.input_weight(), previous, dense)
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
        fixed: FixedDrums | None = None,
        history: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Draws frames step by step.

        Args:
            contexts: (batch, segments, context_size).
            temperature: see `OutputHead.sample`.
            uniform: float32 (steps, batch, num_draws), in [0, 1): decides each draw.
            conditioning: see `forward`.
            fixed: drums that are given, not drawn.
            history: (batch, any, frame_size), the frames before the first step, for the look-back.

        Returns:
            (batch, steps, frame_size).
        """

        return self._run(contexts, temperature, uniform, conditioning, fixed, history)

    @torch.no_grad()
    def scheduled_sampling(
        self,
        contexts: torch.Tensor,
        frames: torch.Tensor,
        probability: float,
        conditioning: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The targets, of which a part is replaced by draws, step by step, each from what came
        before it.

        Draws are constants: no gradient flows through them. So a teacher-forced pass over the
        mixture gives the loss and the gradients that running step by step would give.

        Args:
            contexts: (batch, segments, context_size).
            frames: (batch, steps, frame_size), the targets.
            probability: of a draw, for each step of each sequence.
            conditioning: see `forward`.

        Returns:
            (batch, steps, frame_size).
        """
        batch_size, steps = frames.shape[:2]
        uniform = torch.rand(batch_size, steps, self.head.num_draws, device=frames.device)
        drawn = torch.rand(batch_size, steps, 1, device=frames.device) < probability
        fixed = FixedDrums.hits(frames, self.head.num_drums) if self.hits_are_given else None

        def mix(step: int, draws: torch.Tensor) -> torch.Tensor:
            return draws.where(drawn[:, step], frames[:, step])

        uniform = uniform.transpose(0, 1)
        return self._run(contexts, 1.0, uniform, conditioning, fixed, mix=mix)

    def _run(
        self,
        contexts: torch.Tensor,
        temperature: float,
        uniform: torch.Tensor,
        conditioning: torch.Tensor | None,
        fixed: FixedDrums | None,
        history: torch.Tensor | None = None,
        mix: Callable[[int, torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Runs step by step; `mix` may replace the frame that a step has drawn."""
        step = self.decoding_step()
        dtype, batch_size = step.gate_scale.dtype, len(contexts)
        features = self._past_features(batch_size, history, contexts.device).to(dtype)
        num_past, stride = features.shape[1], max(1, self.steps_per_bar)
        features = F.pad(features, (0, 0, 0, len(uniform)))
        frames = []
        with torch.autocast(contexts.device.type, enabled=False):  # a step has one dtype
            state = step.start(self.head.initial_frame(batch_size, contexts.device))
            conditioning_gates = self._conditioning_gates(conditioning, dtype)
            for context in contexts.to(dtype).unbind(1):
                state = step.restart(state, self.initial_state(context))
                context_gates = self.lstm.context_gates(context) * step.gate_scale
                for _ in range(self.segment_steps):
                    index = len(frames)
                    gates = context_gates
                    if conditioning_gates is not None:
                        gates = gates + conditioning_gates[:, index] * step.gate_scale
                    lookback = features[:, index : index + num_past : stride].flatten(1)
                    given = None if fixed is None else fixed.at(index)
                    state = step(state, gates, lookback, temperature, uniform[index], given)
                    if mix is not None:
                        frame = mix(index, state.frame)
                        state = state._replace(frame=frame, features=self.head.features(frame))
                    if num_past:
                        features[:, num_past + index] = state.features
                    frames.append(state.frame)
        return torch.stack(frames, 1)

    def decoding_step(self) -> DecodingStep:
        """One step of this decoder, with tables that are kept until a weight changes."""
        # Neither a fused optimizer nor a change through `.data` counts as a new version of a
        # tensor; the sum of every 61st weight tells.
        weights = [weight.detach() for weight in self.parameters()]
        sums = torch.stack([weight.flatten()[::61].float().sum() for weight in weights]).tolist()
        versions = [0 if weight.is_inference() else weight._version for weight in weights]
        key = [(weight.data_ptr(), weight.dtype) for weight in weights], versions, sums
        if self._step is None or self._step[0] != key:
            self._step = key, self.new_decoding_step()
        return self._step[1]

    def new_decoding_step(self) -> DecodingStep:
        """One step of this decoder, with tables of its weights as they are."""
        lookback_size = self.lookback_bars * self.head.num_features
        return DecodingStep(self.lstm, self.output, self.head, lookback_size)

    def _conditioning_gates(
        self, conditioning: torch.Tensor | None, dtype: torch.dtype
    ) -> torch.Tensor | None:
        """The part of the conditioning in the gates of each step: (batch, steps, gates)."""
        if conditioning is None:
            return None
        start = self.head.input_size
        weight = self.lstm.input_weight()[start : start + conditioning.shape[-1]]
        return conditioning.to(dtype) @ weight

    def _drop_frames(self, frames: torch.Tensor, silence: torch.Tensor) -> torch.Tensor:
        """In training, silence instead of some of (batch, steps, size), see `input_dropout`."""
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

    def _dense_inputs(
        self, features: torch.Tensor, steps: torch.Tensor, conditioning: torch.Tensor | None
    ) -> torch.Tensor:
        """The decoder's input at some steps, but for the previous frame.

        Args:
            features: (batch, steps, num_features), those of the past first.
            steps: int64 (number,), from the first step after the past.
            conditioning: see `forward`.

        Returns:
            (batch, number, size): the conditioning, then the look-back, oldest first.
        """
        bars = torch.arange(self.lookback_bars, device=steps.device)
        lookback = features[:, steps[:, None] + self.steps_per_bar * bars].flatten(-2)
        if conditioning is None:
            return lookback
        return torch.cat([conditioning[:, steps], lookback], -1)

    def _input_gates(
        self, weight: torch.Tensor, previous: torch.Tensor, dense: torch.Tensor
    ) -> torch.Tensor:
        """The part of the input in the gates: see `DecoderLSTM.input_weight`, `_dense_inputs`."""
        gates = self.head.input_gates(previous, weight)
        if dense.shape[-1]:
            gates = gates + dense.to(weight.dtype) @ weight[self.head.input_size : -1]
        return gates

    def _in_segments(self, steps: torch.Tensor) -> torch.Tensor:
        """(batch, steps, size) -> (segment_steps, batch * segments, size)."""
        return steps.unflatten(1, (-1, self.segment_steps)).flatten(0, 1).transpose(0, 1)
