"""Output heads: how one step of drums is encoded, scored and drawn.

Each head has its own idea of a step, called a frame: a vector of numbers. Decoder and model pass
frames and logits on and know nothing of what is in them, so a new head is one class here and
one line in `OUTPUT_HEADS`.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_musicvae import MusicVAEConfig
from .drum_patterns import DEFAULT_VELOCITY, from_patterns, to_hits, to_patterns
from .expression_bins import bin_to_timing, bin_to_velocity, timing_to_bin, velocity_to_bin


class FixedDrums(NamedTuple):
    """Drums that are given, not drawn.

    Attributes:
        frames: of the head's dtype, (batch, steps, frame_size), or of one step (batch, frame_size).
            Steps beyond them are free.
        drums: bool (drums,), or of one step (batch, drums), those whose hits are given.
        expression: whether their velocity and timing are given too, for all or bool like `drums`.
    """

    frames: torch.Tensor
    drums: torch.Tensor
    expression: bool | torch.Tensor

    @classmethod
    def hits(cls, frames: torch.Tensor, num_drums: int) -> "FixedDrums":
        """All hits of the frames, but not their velocity and timing."""
        return cls.whole(frames, num_drums)._replace(expression=False)

    @classmethod
    def whole(cls, frames: torch.Tensor, num_drums: int) -> "FixedDrums":
        """All of the frames."""
        every_drum = torch.ones(num_drums, dtype=torch.bool, device=frames.device)
        return cls(frames, every_drum, expression=True)

    def at(self, step: int) -> "FixedDrums | None":
        """Those of one step; None where nothing is given."""
        if step >= self.frames.shape[1]:
            return None
        return self._replace(frames=self.frames[:, step])


class OutputHead(nn.Module, ABC):
    """The interface of the heads.

    Attributes:
        terms: names of the terms whose sum is the log-likelihood.
        logits_size: width of the logits of a step.
        input_size: width of the decoder's input for its previous frame.
        num_features: numbers that describe a step, see `features`.
        encoder_input_size: width of the encoder's input at a step.
        num_draws: random numbers that it takes to draw a step.
    """

    terms: tuple[str, ...] = ("hits", "velocity", "timing")
    logits_size: int
    input_size: int
    num_features: int
    encoder_input_size: int
    num_draws: int

    @abstractmethod
    def encoder_inputs(self, piano_roll: torch.Tensor, timing: torch.Tensor) -> torch.Tensor:
        """Drums (batch, drums, steps) -> float32 (batch, steps, encoder_input_size)."""

    @abstractmethod
    def to_frames(self, piano_roll: torch.Tensor, timing: torch.Tensor) -> torch.Tensor:
        """Drums (batch, drums, steps) -> frames (batch, steps, frame_size)."""

    @abstractmethod
    def to_drums(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The inverse of `to_frames`: piano_roll uint8 and timing float32."""

    def initial_frame(self, batch_size: int, device: torch.device) -> torch.Tensor:
        """The frame before the first step, (batch, frame_size): its `decoder_inputs` are zeros."""
        return torch.zeros(batch_size, self.input_size, device=device)

    @abstractmethod
    def decoder_inputs(self, frames: torch.Tensor) -> torch.Tensor:
        """The decoder's input for its previous frame: (..., frame_size) -> float32
        (..., input_size)."""

    @abstractmethod
    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames as numbers of the order of one: hits, and velocity and timing where the output
        has them, 0 for a silent drum and before the first step.

        (..., frame_size) -> float32 (..., num_features)
        """

    def input_gates(self, frames: torch.Tensor, input_weight: torch.Tensor) -> torch.Tensor:
        """`decoder_inputs(frames) @ input_weight[:input_size]`, by the shortest way.

        Args:
            frames: (..., frame_size).
            input_weight: (more than input_size, gates); its last row is zero.
        """
        return self.decoder_inputs(frames).to(input_weight.dtype) @ input_weight[: self.input_size]

    @abstractmethod
    def log_likelihood(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """How likely the logits make the frames: float32 (batch, steps, terms), in nats."""

    @abstractmethod
    def sample(
        self,
        logits: torch.Tensor,
        temperature: float,
        uniform: torch.Tensor,
        fixed: FixedDrums | None = None,
    ) -> torch.Tensor:
        """Draws a frame from each row of logits.

        Args:
            logits: float32 (batch, logits_size).
            temperature: logits are divided by it; 0 takes the most likely hits, and of velocity
                and timing, where they have a distribution, the median.
            uniform: float32 (batch, num_draws), in [0, 1): decides each draw.
            fixed: drums that are given, with frames (batch, frame_size).

        Returns:
            (batch, frame_size).
        """


class CategoricalHead(OutputHead):
    """One of the 2 ** drums patterns, then a velocity and a timing for each drum that is hit.

    A frame is int64: the pattern, -1 before the first step; then for each drum the class of its
    velocity, and then of its timing: 1 plus its bin, 0 where the drum is silent. The pattern is a
    categorical; given the pattern, which shifts their logits, so are velocities and timings.

    The logits are those of the patterns, then with `hit_features` a score of each drum, which all
    patterns with a hit of it share, then those of velocities and timings.
    """

    def __init__(self, config: MusicVAEConfig):
        super().__init__()
        self.num_drums, self.num_patterns = config.num_drums, config.num_patterns
        self.bins = {"velocity": config.velocity_bins, "timing": config.timing_bins}
        self.bins = {name: bins for name, bins in self.bins.items() if bins}
        self.terms = ("hits", *self.bins)
        self.reads_velocity = config.reads_velocity
        expression_size = self.num_drums * sum(self.bins.values())
        self.num_hit_features = self.num_drums * config.hit_features
        self.logits_size = self.num_patterns + self.num_hit_features + expression_size
        self.num_features = self.num_drums * (1 + len(self.bins))
        # Next to the one-hot pattern, all features, or those of expression alone.
        self.num_input_features = self.num_features - self.num_drums + self.num_hit_features
        self.input_size = self.num_patterns + self.num_input_features
        self.encoder_input_size = 1 + self.num_drums * (
            1 + config.velocity_bins + ("timing" in self.bins)
        )
        self.num_draws = 1 + self.num_drums * len(self.bins)
        if self.bins:
            self.expression_bias = nn.Embedding(self.num_patterns, expression_size)

    def encoder_inputs(self, piano_roll: torch.Tensor, timing: torch.Tensor) -> torch.Tensor:
        hits = to_hits(piano_roll)
        inputs = [hits]
        if "velocity" in self.bins:
            # One-hot it is learned a little better than as a number.
            velocities = F.one_hot(self._velocity_classes(piano_roll), self.bins["velocity"] + 1)
            inputs.append(velocities[..., 1:].flatten(-2) * self.reads_velocity)
        if "timing" in self.bins:
            inputs.append(2 * timing.transpose(1, 2))
        silent = ~hits.any(-1, keepdim=True)
        return torch.cat([*inputs, silent], -1).float()

    def to_frames(self, piano_roll: torch.Tensor, timing: torch.Tensor) -> torch.Tensor:
        hits = to_hits(piano_roll)
        columns = [to_patterns(hits)[..., None]]
        if "velocity" in self.bins:
            columns.append(self._velocity_classes(piano_roll))
        if "timing" in self.bins:
            bins = timing_to_bin(timing.transpose(1, 2), self.bins["timing"])
            columns.append((bins + 1) * hits)
        return torch.cat(columns, -1)

    def to_drums(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        patterns, classes = self._split(frames)
        hits = from_patterns(patterns, self.num_drums)
        velocities = torch.full_like(hits, DEFAULT_VELOCITY, dtype=torch.long)
        if "velocity" in self.bins:
            velocities = bin_to_velocity(classes["velocity"] - 1, self.bins["velocity"])
        timings = torch.zeros_like(hits, dtype=torch.float32)
        if "timing" in self.bins:
            timings = bin_to_timing(classes["timing"] - 1, self.bins["timing"])
        piano_roll = (velocities * hits).to(torch.uint8).transpose(1, 2).contiguous()
        return piano_roll, (timings * hits).transpose(1, 2).contiguous()

    def initial_frame(self, batch_size: int, device: torch.device) -> torch.Tensor:
        classes = torch.zeros(batch_size, self.num_draws - 1, dtype=torch.long, device=device)
        return F.pad(classes, (1, 0), value=-1)

    def decoder_inputs(self, frames: torch.Tensor) -> torch.Tensor:
        patterns = frames[..., 0] % (self.num_patterns + 1)
        one_hot = F.one_hot(patterns, self.num_patterns + 1)[..., : self.num_patterns]
        return torch.cat([one_hot, self._input_features(frames)], -1)

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        patterns, classes = self._split(frames)
        parts = [from_patterns(patterns, self.num_drums) & (patterns >= 0)[..., None]]
        if "velocity" in classes:
            bins = classes["velocity"] - 1
            parts.append(bin_to_velocity(bins, self.bins["velocity"]) / 127 * (bins >= 0))
        if "timing" in classes:
            bins = classes["timing"] - 1
            parts.append(2 * bin_to_timing(bins, self.bins["timing"]) * (bins >= 0))
        return torch.cat(parts, -1).float()

    def input_gates(self, frames: torch.Tensor, input_weight: torch.Tensor) -> torch.Tensor:
        # One-hot picks a row; -1, before the first step, picks the last one, which is zero.
        gates = F.embedding(frames[..., 0] % len(input_weight), input_weight)
        features = self._input_features(frames).to(input_weight.dtype)
        return gates + features @ input_weight[self.num_patterns : self.input_size]

    def log_likelihood(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        patterns, classes = self._split(frames)
        pattern_logits = self._pattern_logits(logits)
        expression_logits = self._expression_logits(logits, patterns)
        terms = [-_cross_entropy(pattern_logits, patterns)]
        for name, bins in classes.items():  # a silent drum has class 0, and is not scored
            terms.append(-_cross_entropy(expression_logits[name], bins - 1).sum(-1))
        return torch.stack(terms, -1)

    def sample(
        self,
        logits: torch.Tensor,
        temperature: float,
        uniform: torch.Tensor,
        fixed: FixedDrums | None = None,
    ) -> torch.Tensor:
        pattern_logits = self._pattern_logits(logits)
        if fixed is not None:
            pattern_logits = self.rule_out(pattern_logits, fixed)
        patterns = sample_classes(pattern_logits, temperature, uniform[..., 0])
        if not self.bins:
            return patterns[..., None]
        expression_logits = self._expression_logits(logits, patterns)
        hits = from_patterns(patterns, self.num_drums)
        draws = uniform[..., 1:].split(self.num_drums, -1)
        if temperature == 0:
            # Their classes are ordered: the median is the least wrong on average, not the mode.
            temperature, draws = 1.0, [torch.full_like(draw, 0.5) for draw in draws]
        columns = [
            (sample_classes(expression_logits[name], temperature, draw) + 1) * hits
            for name, draw in zip(self.bins, draws, strict=True)
        ]
        classes = torch.cat(columns, -1)
        if fixed is not None:
            classes = self.keep_expression(classes, fixed)
        return torch.cat([patterns[..., None], classes], -1)

    def _velocity_classes(self, piano_roll: torch.Tensor) -> torch.Tensor:
        # Velocity 0, silence, lies one bin below the softest.
        return velocity_to_bin(piano_roll.transpose(1, 2), self.bins["velocity"]) + 1

    def _split(self, frames: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Patterns (...), and the classes (..., drums) of velocity and timing."""
        columns = frames[..., 1:].split(self.num_drums, -1)
        return frames[..., 0], dict(zip(self.bins, columns, strict=False))

    def _pattern_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """(..., patterns), with hit features float32."""
        scores, of_hits, _ = logits.split(self._logits_sizes(), -1)
        if not self.num_hit_features:
            return scores
        every_pattern = torch.arange(self.num_patterns, device=logits.device)
        hits = from_patterns(every_pattern, self.num_drums).float()
        with torch.autocast(logits.device.type, enabled=False):
            return scores.float() + of_hits.float() @ hits.T

    def _expression_logits(
        self, logits: torch.Tensor, patterns: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Given `patterns` (...), those of velocity and of timing (..., drums, bins)."""
        if not self.bins:
            return {}
        *_, expression = logits.split(self._logits_sizes(), -1)
        expression = expression + self.expression_bias(patterns)
        parts = expression.split([self.num_drums * bins for bins in self.bins.values()], -1)
        return {
            name: part.unflatten(-1, (self.num_drums, -1))
            for name, part in zip(self.bins, parts, strict=True)
        }

    def _logits_sizes(self) -> list[int]:
        sizes = [self.num_patterns, self.num_hit_features]
        return [*sizes, self.logits_size - sum(sizes)]

    def _input_features(self, frames: torch.Tensor) -> torch.Tensor:
        return self.features(frames)[..., self.num_features - self.num_input_features :]

    def rule_out(self, pattern_logits: torch.Tensor, fixed: FixedDrums) -> torch.Tensor:
        """The logits, with none for the patterns that differ from what is fixed."""
        patterns = torch.arange(self.num_patterns, device=pattern_logits.device)
        differing = (patterns ^ fixed.frames[..., :1]) & to_patterns(fixed.drums)[..., None]
        return pattern_logits.masked_fill(differing > 0, -torch.inf)

    def keep_expression(self, classes: torch.Tensor, fixed: FixedDrums) -> torch.Tensor:
        """The classes of velocity and timing, with those that are fixed."""
        if fixed.expression is False:
            return classes
        kept = torch.cat(len(self.bins) * [fixed.drums & fixed.expression], -1)
        return fixed.frames[..., 1:].where(kept, classes)


class GrooveHead(OutputHead):
    """GrooVAE's output: hits, velocities and offsets of all drums.

    A frame is float32 in Magenta's numbers: for each drum 1 if it is hit, then its velocity /
    127, then its offset, -2 * timing. Hits are independent of each other, and velocities and
    offsets are numbers: the "log-likelihood" of these is minus the squared error, silent drums
    included, and temperature leaves them as they are.
    """

    EPSILON = 1e-7  # inside the logarithms of Magenta's log loss

    def __init__(self, config: MusicVAEConfig):
        super().__init__()
        self.num_drums = self.num_draws = config.num_drums
        self.logits_size = self.input_size = self.encoder_input_size = 3 * config.num_drums
        self.num_features = self.input_size
        self.reads_velocity = config.reads_velocity

    def encoder_inputs(self, piano_roll: torch.Tensor, timing: torch.Tensor) -> torch.Tensor:
        hits, velocities, offsets = self.to_frames(piano_roll, timing).chunk(3, -1)
        return torch.cat([hits, velocities * self.reads_velocity, offsets], -1)

    def to_frames(self, piano_roll: torch.Tensor, timing: torch.Tensor) -> torch.Tensor:
        velocities = piano_roll.transpose(1, 2)
        return torch.cat([velocities > 0, velocities / 127, -2 * timing.transpose(1, 2)], -1)

    def to_drums(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hits, velocities, offsets = frames.transpose(1, 2).chunk(3, 1)
        piano_roll = (127 * velocities).round().clamp(1, 127) * hits
        latest = 0.5 - torch.finfo(torch.float32).eps  # the way back excludes half a step
        return piano_roll.to(torch.uint8), (-offsets / 2).clamp(-0.5, latest) * hits

    def decoder_inputs(self, frames: torch.Tensor) -> torch.Tensor:
        return frames

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        return frames

    def log_likelihood(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        hits, velocities, offsets = frames.chunk(3, -1)
        hit_logits, velocity_logits, offset_logits = logits.float().chunk(3, -1)
        probability = hit_logits.sigmoid()
        log_loss = -hits * (probability + self.EPSILON).log()
        log_loss = log_loss - (1 - hits) * (1 - probability + self.EPSILON).log()
        velocity_error = (velocity_logits.sigmoid() - velocities) ** 2
        offset_error = (offset_logits.tanh() - offsets) ** 2
        return -torch.stack([log_loss, velocity_error, offset_error], -2).sum(-1)

    def sample(
        self,
        logits: torch.Tensor,
        temperature: float,
        uniform: torch.Tensor,
        fixed: FixedDrums | None = None,
    ) -> torch.Tensor:
        hit_logits, velocity_logits, offset_logits = logits.chunk(3, -1)
        hits = sample_hits(hit_logits, temperature, uniform)
        frames = torch.cat([hits, velocity_logits.sigmoid(), offset_logits.tanh()], -1)
        if fixed is not None:
            kept = torch.cat([fixed.drums, *2 * [fixed.drums & fixed.expression]])
            frames = fixed.frames.where(kept, frames)
        return frames


class NADEHead(OutputHead):
    """A neural autoregressive distribution estimator (NADE) over the drums of a step.

    Each drum is a Bernoulli given those before it (Larochelle and Murray 2011). The logits are the
    biases of its hidden and of its visible units (Boulanger-Lewandowski et al. 2012, arXiv
    1206.6392). A frame is float32: for each drum 1 if it is hit.
    """

    terms = ("hits",)

    def __init__(self, config: MusicVAEConfig):
        super().__init__()
        size = config.nade_hidden_size
        self.num_drums = self.num_draws = config.num_drums
        self.input_size = self.num_features = config.num_drums
        self.encoder_input_size = config.num_drums + 1
        self.logits_size = size + config.num_drums
        self.w_enc = nn.Parameter(torch.empty(config.num_drums, size))
        self.w_dec = nn.Parameter(torch.empty(config.num_drums, size))

    def encoder_inputs(self, piano_roll: torch.Tensor, timing: torch.Tensor) -> torch.Tensor:
        hits = to_hits(piano_roll)
        return torch.cat([hits, ~hits.any(-1, keepdim=True)], -1).float()

    def to_frames(self, piano_roll: torch.Tensor, timing: torch.Tensor) -> torch.Tensor:
        return to_hits(piano_roll).float()

    def to_drums(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        piano_roll = (frames.transpose(1, 2) * DEFAULT_VELOCITY).to(torch.uint8)
        return piano_roll, torch.zeros_like(piano_roll, dtype=torch.float32)

    def decoder_inputs(self, frames: torch.Tensor) -> torch.Tensor:
        return frames

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        return frames

    def log_likelihood(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        hidden_bias, visible_bias = self._split_logits(logits.float())
        contributions = frames[..., None] * self.w_enc
        hidden = hidden_bias[..., None, :] + contributions.cumsum(-2) - contributions
        hit_logits = visible_bias + (hidden.sigmoid() * self.w_dec).sum(-1)
        losses = F.binary_cross_entropy_with_logits(hit_logits, frames, reduction="none")
        return -losses.sum(-1, keepdim=True)

    def sample(
        self,
        logits: torch.Tensor,
        temperature: float,
        uniform: torch.Tensor,
        fixed: FixedDrums | None = None,
    ) -> torch.Tensor:
        hidden, visible_bias = self._split_logits(logits)
        frames = []
        for drum in range(self.num_drums):
            if fixed is not None and fixed.drums[drum]:
                hits = fixed.frames[..., drum]
            else:
                hit_logits = visible_bias[..., drum] + (hidden.sigmoid() * self.w_dec[drum]).sum(-1)
                hits = sample_hits(hit_logits, temperature, uniform[..., drum])
            hidden = hidden + hits[..., None] * self.w_enc[drum]
            frames.append(hits)
        return torch.stack(frames, -1)

    def _split_logits(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return logits.split([self.logits_size - self.num_drums, self.num_drums], -1)


OUTPUT_HEADS = {"categorical": CategoricalHead, "groove": GrooveHead, "nade": NADEHead}


def sample_classes(logits: torch.Tensor, temperature: float, uniform: torch.Tensor) -> torch.Tensor:
    """One class from each row of logits, by inverting the cumulative distribution.

    Args:
        logits: float32 (..., classes).
        temperature: logits are divided by it; 0 takes the most likely class.
        uniform: float32 (...), in [0, 1): decides each draw.

    Returns:
        int64 (...).
    """
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits / temperature, -1).cumsum_(-1)
    threshold = uniform[..., None] * cumulative[..., -1:]
    drawn = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
    return drawn.clamp_(max=logits.shape[-1] - 1)


def sample_hits(logits: torch.Tensor, temperature: float, uniform: torch.Tensor) -> torch.Tensor:
    """1.0 where a drum is hit, each with probability sigmoid(logits / temperature).

    At temperature 0 it is hit if that is more likely than not. Arguments are as for
    `sample_classes`, all of one shape.
    """
    if temperature == 0:
        return (logits > 0).to(logits.dtype)
    return (uniform < torch.sigmoid(logits / temperature)).to(logits.dtype)


def _cross_entropy(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """float32 (...), in nats; 0 where the class is -1."""
    losses = F.cross_entropy(
        logits.float().flatten(0, -2), classes.flatten(), reduction="none", ignore_index=-1
    )
    return losses.view_as(classes)
