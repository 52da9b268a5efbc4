"""Attributes of a groove that a listener hears, as numbers.

Each measure takes `piano_roll` uint8 (batch, 9, steps), MIDI velocities, and `timing` float32
(batch, 9, steps), in steps, with the drums in the order of `MusicVAEProcessor`, in 4/4 and whole
bars, and gives float32 (batch,). A drum that is silent throughout counts for nothing.
"""

from fractions import Fraction

import torch

NUM_DRUMS = 9
SKINS = [0, 1, 4, 5, 6]  # kick, snare and toms
HIHATS = [2, 3]  # closed, open
TIMEKEEPERS = [2, 3, 8]  # hi-hats and ride


def density(piano_roll: torch.Tensor, timing: torch.Tensor, steps_per_bar: int) -> torch.Tensor:
    """Hits a bar, of all drums."""
    return (piano_roll > 0).sum((1, 2)) * steps_per_bar / piano_roll.shape[-1]


def syncopation(piano_roll: torch.Tensor, timing: torch.Tensor, steps_per_bar: int) -> torch.Tensor:
    """Syncopation a bar of kick, snare and toms heard as one line.

    As in Longuet-Higgins and Lee (1984), "The Rhythmic Interpretation of Monophonic Music", a hit
    is syncopated if a metrically stronger step follows on which, as on all steps between, the line
    is silent; by as many levels as the strongest such step is above it. An off-beat eighth without
    a hit on the next beat counts 1, an off-beat sixteenth 2, or 1 if a hit on the beat follows the
    silence of the off-beat eighth.

    Two choices suit it to drums. All four beats are one level, for a backbeat is no syncopation.
    And cymbals are left out: their steady eighths would fill the rests of every other drum.
    The window is heard as a loop, so that its last hits lead to its first step.
    """
    hits = (piano_roll[:, SKINS] > 0).any(1)
    bars = hits.shape[-1] // steps_per_bar
    strength = torch.zeros_like(hits, dtype=torch.long)
    silent_since = hits
    for distance in range(1, steps_per_bar):
        silent_since = silent_since & ~hits.roll(-distance, 1)
        levels = torch.tensor(_levels_risen(steps_per_bar, distance), device=hits.device)
        strength = strength.maximum(silent_since * levels.repeat(bars))
    return strength.sum(1) / bars


def hihat_density(
    piano_roll: torch.Tensor, timing: torch.Tensor, steps_per_bar: int
) -> torch.Tensor:
    """Hits a bar, of the closed and the open hi-hat."""
    return density(piano_roll[:, HIHATS], timing, steps_per_bar)


def mean_velocity(
    piano_roll: torch.Tensor, timing: torch.Tensor, steps_per_bar: int
) -> torch.Tensor:
    """Mean MIDI velocity of the hits, 1 to 127; 0 if there are none."""
    return _mean(piano_roll, piano_roll > 0)


def swing(piano_roll: torch.Tensor, timing: torch.Tensor, steps_per_bar: int) -> torch.Tensor:
    """How late the off-beat eighths of hi-hats and ride are, in beats.

    0 is straight, 1/6 the triplet feel (swing ratio 2:1), 1/4 dotted (3:1). The swing ratio of a
    ride cymbal is what Friberg and Sundström (2002), "Swing Ratios and Ensemble Timing in Jazz
    Performance", measured; this is its off-beat as a distance from the middle of the beat,
    (ratio - 1) / (2 * (ratio + 1)), less how late the hits of all drums on the beats are.

    An off-beat's onset is its step and its timing together: with 16 steps a bar a triplet's lies
    a third of a step before the beat's last step, so that a groove without timing swings by 0 or
    1/4. Only beats with one off-beat step in these cymbals count: more are sixteenths, fewer say
    nothing. Swung sixteenths are thus not seen. Without any such beat swing is 0.
    """
    quarter_steps = 4 * torch.arange(piano_roll.shape[-1], device=piano_roll.device)
    beat, phase = quarter_steps // steps_per_bar, quarter_steps % steps_per_bar
    hits, onset = piano_roll > 0, (phase + 4 * timing) / steps_per_bar
    off_beats = hits[:, TIMEKEEPERS] & (phase > 0)
    same_beat = (beat[:, None] == beat).float()
    eighths = off_beats & (off_beats.any(1).float() @ same_beat == 1)[:, None]
    lateness = _mean(onset[:, TIMEKEEPERS] - 0.5, eighths) - _mean(onset, hits & (phase == 0))
    return torch.where(eighths.any(2).any(1), lateness, 0)


ATTRIBUTES = {
    "density": density,
    "syncopation": syncopation,
    "hihat_density": hihat_density,
    "mean_velocity": mean_velocity,
    "swing": swing,
}


def measure_attributes(
    piano_roll: torch.Tensor, timing: torch.Tensor, steps_per_bar: int
) -> torch.Tensor:
    """All measures in the order of `ATTRIBUTES`.

    Args:
        piano_roll: uint8 (batch, 9, steps), steps a multiple of `steps_per_bar`.
        timing: float32 (batch, 9, steps), in steps.
        steps_per_bar: steps in a bar of 4/4.

    Returns:
        float32 (batch, attributes).

    Raises:
        ValueError: `piano_roll` has other drums or broken bars, or `timing` another shape.
    """
    shape = tuple(piano_roll.shape)
    if len(shape) != 3 or shape[1] != NUM_DRUMS or shape[2] % steps_per_bar:
        raise ValueError(
            f"piano_roll: found {shape}, expected (batch, {NUM_DRUMS}, steps), steps a multiple of "
            f"{steps_per_bar}"
        )
    if timing.shape != piano_roll.shape:
        raise ValueError(f"timing: found {tuple(timing.shape)}, expected {shape}")
    measures = ATTRIBUTES.values()
    return torch.stack([measure(piano_roll, timing, steps_per_bar) for measure in measures], 1)


def _mean(values: torch.Tensor, selected: torch.Tensor) -> torch.Tensor:
    """Mean of the selected values of each roll; 0 where none is."""
    return (values * selected).sum((1, 2)).float() / selected.sum((1, 2)).clamp(min=1)


def _levels_risen(steps_per_bar: int, distance: int) -> list[int]:
    """Of each step of a bar, how many metrical levels the one a distance after it is above it.

    A step is as many levels below the beat as one has to divide the beat, each time by a prime,
    until a line falls on it. It is compared only with the lines of its own divisions, so that
    even triplets or sixteenths are not syncopated by one another; the others count 0.
    """
    divisions = [Fraction(4 * step, steps_per_bar).denominator for step in range(steps_per_bar)]
    pairs = zip(divisions, divisions[distance:] + divisions[:distance], strict=True)
    return [_num_prime_factors(own // later) if own % later == 0 else 0 for own, later in pairs]


def _num_prime_factors(number: int) -> int:
    if number == 1:
        return 0
    factor = next(factor for factor in range(2, number + 1) if number % factor == 0)
    return 1 + _num_prime_factors(number // factor)
