"""The verbs of a MusicVAE: new drums, and other drums made of given ones."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput, can_return_tuple

from .consensus import MAX_WINDOWS, NUM_DRAWS, TEMPERATURE, FixedDraws, agreed_hits
from .drum_patterns import DEFAULT_VELOCITY
from .drum_transforms import follow_taps
from .latent_space import spherical_interpolation
from .output_heads import FixedDrums

# The path from one draw of latents to another has at least as many windows, or neighbours would
# have little in common.
MIN_PATH_WINDOWS = 5


@dataclass
class MusicVAEDecoderOutput(ModelOutput):
    """New drums.

    Attributes:
        piano_roll: uint8 (batch, drums, steps), MIDI velocities.
        timing: float32 (batch, drums, steps), microtiming in steps.
    """

    piano_roll: torch.ByteTensor | None = None
    timing: torch.FloatTensor | None = None


class MusicVAEVerbs:
    """The verbs of `MusicVAEModel`.

    All draw step by step, and the same seed gives the same drums. A batch of drums is a batch of
    windows that know nothing of each other; with `consecutive` they are those of one song, in
    order, and the look-back of each sees the windows before it.
    """

    @can_return_tuple
    @torch.no_grad()
    def decode(
        self,
        latents: torch.Tensor,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        score: torch.Tensor | None = None,
        conditioning: torch.Tensor | None = None,
        history: MusicVAEDecoderOutput | None = None,
        consecutive: bool = False,
    ) -> MusicVAEDecoderOutput:
        """Drums drawn from the decoder, step by step.

        Args:
            latents: (batch, latent_size).
            temperature: of the draws; 0 takes the most likely hits at each step, with the median of
                their velocity and timing.
            generator: source of the draws, torch's or another object with methods `rand` and
                `randn` of a shape. The same seed gives the same drums.
            score: uint8 (batch, drums, steps), a piano roll whose hits come out exactly, so that
                only their velocity and timing are drawn. A model that was trained with
                `hits_as_controls` needs one.
            conditioning: of each step, (batch, steps, size), as the method `conditioning` returns
                it next to the score. Models need it that are conditioned on drums; where these are
                the score's hits alone, it is made from the score if it is not given.
            history: the drums before these, any number of steps that ends with a bar, such as the
                output of an earlier call; the look-back sees them. Without it it sees silence.
            consecutive: whether the latents are those of one song's windows, in order.

        Raises:
            ValueError: an argument has the wrong shape or dtype, `temperature` is negative, or
                `score` or `conditioning` is missing.
        """
        fixed, conditioning = self._fixed_and_conditioning(score, conditioning)
        draws = temperature, generator, fixed, conditioning
        past = self._past_frames(history, 1 if consecutive else len(latents))
        return self._to_drums(self._draw_windows(latents, *draws, past, consecutive))

    @torch.no_grad()
    def greedy(
        self, logits: torch.Tensor, score: torch.Tensor | None = None
    ) -> MusicVAEDecoderOutput:
        """The drums of temperature 0 at each step, by the logits (batch, steps, logits_size) of
        `forward`; see `decode` for `score`."""
        rows = logits.float().flatten(0, 1)
        fixed = None if score is None else self._score(score)
        if fixed is not None:
            fixed = fixed._replace(frames=fixed.frames.flatten(0, 1))
        uniform = rows.new_zeros(len(rows), self.head.num_draws)
        frames = self.head.sample(rows, 0, uniform, fixed)
        return self._to_drums(frames.unflatten(0, logits.shape[:2]))

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        score: torch.Tensor | None = None,
        conditioning: torch.Tensor | None = None,
        history: MusicVAEDecoderOutput | None = None,
        bars: int | None = None,
        attributes: Mapping[str, float] | None = None,
        style: str | None = None,
    ) -> MusicVAEDecoderOutput:
        """New drums: latents drawn from the prior, or from what `fit_latent_distribution` has
        learned instead, and decoded.

        Drums longer than a window wander from one draw of latents toward another, a step with each
        window: the noise that latents are made of follows the sphere near which it lies.

        Args:
            num_samples: drums to make.
            temperature, generator, score, conditioning, history: see `decode`.
            bars: of each of them; if not given, those of a window.
            attributes: names and strengths of what is added to all latents: see `add_attribute`.
            style: one of `config.styles`, from whose distribution latents are drawn.

        Returns:
            (num_samples, drums, bars * steps_per_bar).

        Raises:
            ValueError: see `decode`; `num_samples` or `bars` is below 1, or `bars` is more than a
                window's with a `score` or `conditioning`; there is no vector for an attribute, or
                no such style.
        """
        bars = self.config.bars if bars is None else bars
        for name, number in (("num_samples", num_samples), ("bars", bars)):
            if number < 1:
                raise ValueError(f"{name}: found {number}, expected at least 1")
        fixed, conditioning = self._fixed_and_conditioning(score, conditioning)
        if bars > self.config.bars and (fixed is not None or conditioning is not None):
            raise ValueError(
                f"bars: found {bars}, expected at most {self.config.bars}, those of the score or "
                "the conditioning"
            )
        past = self._past_frames(history, num_samples)
        choices = None
        if self.config.latent_kernels:
            choices = draw("rand", (num_samples,), generator, self.device)
        windows = []
        for noise in self._wander(num_samples, -(-bars // self.config.bars), generator):
            latents = self.latents_from_noise(noise, style, choices)
            latents = self._add_attributes(latents, attributes)
            frames = self._draw_windows(latents, temperature, generator, fixed, conditioning, past)
            windows.append(frames)
            past = _joined(past, frames)
        frames = torch.cat(windows, 1)[:, : bars * self.config.steps_per_bar]
        return self._to_drums(frames)

    def _wander(
        self, num_samples: int, num_windows: int, generator: torch.Generator | None
    ) -> Iterator[torch.Tensor]:
        """The noise (num_samples, latent_size) of each window; drawn when it is needed, so that
        longer drums begin as shorter ones do."""
        shape = (num_samples, self.config.latent_size)
        start = draw("randn", shape, generator, self.device)
        yield start
        if num_windows > 1:
            end = draw("randn", shape, generator, self.device)
            num_points = max(num_windows, MIN_PATH_WINDOWS)
            paths = [
                spherical_interpolation(*ends, num_points) for ends in zip(start, end, strict=True)
            ]
            yield from torch.stack(paths, 1)[1:num_windows]

    def latents_from_noise(
        self, noise: torch.Tensor, style: str | None = None, choices: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Latents that are distributed as the model's are, of noise that is standard normal.

        Args:
            noise: float32 (batch, latent_size).
            style: whose latents; if not given, those of all drums.
            choices: float32 (batch,), in [0, 1): chooses a kernel for each, where
                `config.latent_kernels` is not 0.

        Returns:
            float32 (batch, latent_size); the noise itself, which is the prior's, unless
            `fit_latent_distribution` has learned something else.

        Raises:
            ValueError: the model has no such style, or kernels and not as many choices.
        """
        centers = getattr(self, "kernel_centers", None)
        if style is not None:
            names = list(self.config.styles)
            if style not in names:
                expected = f"one of {names}" if names else "none: this model knows no styles"
                raise ValueError(f"style: found {style!r}, expected {expected}")
            centers = self.style_centers[names.index(style)]
        latents = self.latent_mean.float() + noise @ self.latent_scale.float().T
        if centers is None:
            return latents
        if choices is None or choices.shape != noise.shape[:1]:
            found = "none" if choices is None else f"shape {tuple(choices.shape)}"
            raise ValueError(f"choices: found {found}, expected shape ({len(noise)},)")
        return latents + centers[(choices * len(centers)).long()].float()

    @torch.no_grad()
    def continue_drums(
        self,
        piano_roll: torch.Tensor,
        timing: torch.Tensor | None = None,
        bars: int | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> MusicVAEDecoderOutput:
        """Given bars, exactly, and new ones that follow them.

        The latents are the posterior mean of the given bars, the last ones of them, repeated where
        they are fewer than a window's. See `decode`.

        Args:
            piano_roll: uint8 (batch, drums, steps), one whole bar or more.
            timing: float32 (batch, drums, steps).
            bars: new ones; if not given, as many as a window has.

        Returns:
            (batch, drums, steps + bars * steps_per_bar).
        """
        self._check_input_transform("continue_drums", "none")
        if self.config.hits_as_controls:
            raise ValueError(
                "continue_drums: found a model trained with hits_as_controls, expected one that is "
                "not conditioned on hits"
            )
        piano_roll, timing = self._check_drums(piano_roll, timing, any_bars=True)
        bars = self.config.bars if bars is None else bars
        if bars < 1:
            raise ValueError(f"bars: found {bars}, expected at least 1")
        num_given, num_steps = piano_roll.shape[-1], self.config.num_steps
        total = num_given + bars * self.config.steps_per_bar
        repeats = -(-num_steps // num_given)
        ends = (each.repeat(1, 1, repeats)[..., -num_steps:] for each in (piano_roll, timing))
        latents = self.encode(*ends).mean
        frames = self.head.to_frames(piano_roll, timing)
        while frames.shape[1] < total:
            start = frames.shape[1] // num_steps * num_steps
            past, given = frames[:, :start], frames[:, start:]
            fixed = FixedDrums.whole(given, self.config.num_drums)
            drawn = self._draw_windows(latents, temperature, generator, fixed, past=past)
            frames = torch.cat([frames, drawn[:, given.shape[1] :]], 1)
        made = self._to_drums(frames[:, num_given:total])
        return MusicVAEDecoderOutput(
            piano_roll=torch.cat([piano_roll, made.piano_roll], -1),
            timing=torch.cat([timing, made.timing], -1),
        )

    @torch.no_grad()
    def reconstruct(
        self,
        piano_roll: torch.Tensor,
        timing: torch.Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        consecutive: bool = False,
        attributes: Mapping[str, float] | None = None,
    ) -> MusicVAEDecoderOutput:
        """Drums decoded from the posterior mean of others; see `encode` and `decode`.

        The hits stay as they are in a model that was trained with `hits_as_controls`.

        Args:
            attributes: names and strengths of what is added to the latents: see `add_attribute`.
        """
        self._check_input_transform("reconstruct", "none")
        mean = self._add_attributes(self.encode(piano_roll, timing).mean, attributes)
        conditioning = self.conditioning(piano_roll, timing)
        return self.decode(mean, temperature, generator, *conditioning, consecutive=consecutive)

    @torch.no_grad()
    def humanize(
        self,
        piano_roll: torch.Tensor,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        consecutive: bool = False,
    ) -> MusicVAEDecoderOutput:
        """The hits of a piano roll, exactly, with the velocity and timing of a drummer.

        The velocities of `piano_roll` do not matter; see `decode`.
        """
        self._check_input_transform("humanize", "humanize")
        mean, (_, conditioning) = self.encode(piano_roll).mean, self.conditioning(piano_roll)
        return self.decode(
            mean, temperature, generator, piano_roll, conditioning, consecutive=consecutive
        )

    @torch.no_grad()
    def tap_to_drums(
        self,
        piano_roll: torch.Tensor,
        timing: torch.Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        consecutive: bool = False,
    ) -> MusicVAEDecoderOutput:
        """Drums for a tapped rhythm, on whichever drums it was tapped; see `decode`.

        They keep the feel of the taps, see `follow_taps`. At temperature 0 their hits are those
        that many draws agree on, see `consensus`.
        """
        self._check_input_transform("tap_to_drums", "tap", "tap_fixed_velocity")
        piano_roll, timing = self._check_drums(piano_roll, timing)
        mean = self.encode(piano_roll, timing).mean
        score, conditioning = self.conditioning(piano_roll, timing)
        if temperature == 0:
            score = self._consensus(mean, conditioning)
        drums = self.decode(
            mean, temperature, generator, score, conditioning, consecutive=consecutive
        )
        made = drums.piano_roll, drums.timing
        made, made_timing = follow_taps(self.config, made, piano_roll, timing)
        return MusicVAEDecoderOutput(piano_roll=made, timing=made_timing)

    def _consensus(self, latents: torch.Tensor, conditioning: torch.Tensor | None) -> torch.Tensor:
        """The hits that draws from latents agree on, uint8 (batch, drums, steps)."""
        generator, hits = FixedDraws(), []
        for start in range(0, len(latents), MAX_WINDOWS):
            repeated = [
                None if each is None else each[start:][:MAX_WINDOWS].repeat_interleave(NUM_DRAWS, 0)
                for each in (latents, conditioning)
            ]
            frames = self._draw_windows(repeated[0], TEMPERATURE, generator, None, repeated[1])
            hits.append(agreed_hits(self._to_drums(frames).piano_roll))
        return torch.cat(hits).to(torch.uint8) * DEFAULT_VELOCITY

    @torch.no_grad()
    def add_drums(
        self,
        piano_roll: torch.Tensor,
        timing: torch.Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        consecutive: bool = False,
    ) -> MusicVAEDecoderOutput:
        """The drums that this model adds, `config.removed_drums`, together with all others.

        Every other drum comes out exactly as it is given, and what is given of the added drums does
        not matter; see `decode`.
        """
        self._check_input_transform("add_drums", "remove_drums")
        piano_roll, timing = self._check_drums(piano_roll, timing)
        kept = torch.ones(self.config.num_drums, dtype=torch.bool, device=piano_roll.device)
        kept[list(self.config.removed_drums)] = False
        mean = self.encode(piano_roll, timing).mean
        _, conditioning = self.conditioning(piano_roll, timing)
        fixed = FixedDrums(self.head.to_frames(piano_roll, timing), kept, expression=True)
        draws = temperature, generator, fixed, conditioning
        added = self._to_drums(self._draw_windows(mean, *draws, consecutive=consecutive))
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
        consecutive: bool = False,
    ) -> MusicVAEDecoderOutput:
        """The hits of `score`, exactly, with the feel of other drums; see `decode`.

        Args:
            score: uint8 (batch, drums, steps); its velocities do not matter.
            piano_roll, timing: drums as many as scores, or one for all of them.
        """
        self._check_input_transform("transfer_groove", "none")
        mean = self.encode(piano_roll, timing).mean
        if len(mean) == 1:
            mean = mean.expand(len(score), -1)
        return self.decode(mean, temperature, generator, score, consecutive=consecutive)

    @torch.no_grad()
    def interpolate(
        self,
        start: torch.Tensor,
        end: torch.Tensor,
        num_points: int,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        start_timing: torch.Tensor | None = None,
        end_timing: torch.Tensor | None = None,
        consecutive: bool = False,
    ) -> MusicVAEDecoderOutput:
        """Drums along the great arc between the posterior means of two others; see `decode`.

        Args:
            start, end: piano rolls, uint8 (drums, steps).
            num_points: drums to make, the reconstructions of both ends included.
            start_timing, end_timing: float32 (drums, steps).
        """
        ends = []
        for name, roll, timing in (("start", start, start_timing), ("end", end, end_timing)):
            roll, timing = self._check_drums(roll, timing, name, batch=())
            ends.append(self.encode(roll[None], timing[None]).mean[0])
        latents = spherical_interpolation(*ends, num_points)
        return self.decode(latents, temperature, generator, consecutive=consecutive)

    def _fixed_and_conditioning(
        self, score: torch.Tensor | None, conditioning: torch.Tensor | None
    ) -> tuple[FixedDrums | None, torch.Tensor | None]:
        """All that is given to the decoder; raises an error where the model needs more."""
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
        return None if score is None else self._score(score), conditioning

    def _add_attributes(
        self, latents: torch.Tensor, attributes: Mapping[str, float] | None
    ) -> torch.Tensor:
        for attribute, strength in (attributes or {}).items():
            latents = self.add_attribute(latents, attribute, strength)
        return latents

    def _score(self, score: torch.Tensor) -> FixedDrums:
        """All hits of a piano roll, without velocity and timing."""
        score, on_grid = self._check_drums(score, None, "score")
        return FixedDrums.hits(self.head.to_frames(score, on_grid), self.config.num_drums)

    def _past_frames(
        self, history: MusicVAEDecoderOutput | None, batch_size: int
    ) -> torch.Tensor | None:
        if history is None:
            return None
        drums = self._check_drums(history.piano_roll, history.timing, "history", any_bars=True)
        if len(history.piano_roll) != batch_size:
            raise ValueError(
                f"history: found a batch of {len(history.piano_roll)}, expected {batch_size}"
            )
        return self.head.to_frames(*drums)

    def _draw_windows(
        self,
        latents: torch.Tensor,
        temperature: float,
        generator: torch.Generator | None,
        fixed: FixedDrums | None = None,
        conditioning: torch.Tensor | None = None,
        past: torch.Tensor | None = None,
        consecutive: bool = False,
    ) -> torch.Tensor:
        """Frames (batch, steps, frame_size), `past` being those before; see `decode`."""
        if latents.ndim != 2 or latents.shape[1] != self.config.latent_size:
            raise ValueError(
                f"latents: found shape {tuple(latents.shape)}, expected "
                f"(batch, {self.config.latent_size})"
            )
        given = {"score": None if fixed is None else fixed.frames, "conditioning": conditioning}
        for name, each in given.items():
            if each is not None and len(each) != len(latents):
                raise ValueError(f"{name}: found a batch of {len(each)}, expected {len(latents)}")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature: found {temperature}, expected 0 or more")
        if consecutive and self.config.lookback_bars:
            windows = []
            for index in range(len(latents)):
                this = slice(index, index + 1)
                drawn = self._draw_windows(
                    latents[this],
                    temperature,
                    generator,
                    None if fixed is None else fixed._replace(frames=fixed.frames[this]),
                    None if conditioning is None else conditioning[this],
                    past,
                )
                windows.append(drawn)
                past = _joined(past, drawn)
            return torch.cat(windows)
        shape = (self.config.num_steps, len(latents), self.head.num_draws)
        uniform = draw("rand", shape, generator, self.device)
        contexts = self._contexts(latents)
        return self.decoder.sample(contexts, temperature, uniform, conditioning, fixed, past)

    def _to_drums(self, frames: torch.Tensor) -> MusicVAEDecoderOutput:
        piano_roll, timing = self.head.to_drums(frames)
        return MusicVAEDecoderOutput(piano_roll=piano_roll, timing=timing)

    def _check_input_transform(self, verb: str, *expected: str) -> None:
        if self.config.input_transform not in expected:
            raise ValueError(
                f"{verb}: found a model trained with input_transform "
                f"{self.config.input_transform!r}, expected {' or '.join(map(repr, expected))}"
            )


def draw(distribution: str, shape, generator, device) -> torch.Tensor:
    """Random numbers, "rand" or "randn", drawn where the generator lives, so that a seed means the
    same everywhere."""
    if generator is not None and not isinstance(generator, torch.Generator):
        return getattr(generator, distribution)(shape).to(device)
    source = generator.device if generator is not None else device
    return getattr(torch, distribution)(shape, generator=generator, device=source).to(device)


def _joined(past: torch.Tensor | None, frames: torch.Tensor) -> torch.Tensor:
    return frames if past is None else torch.cat([past, frames], 1)
