"""Transformations of the encoder's input, which a model learns to undo.

Gillick, Roberts, Engel, Eck, Bamman: Learning to Groove with Inverse Sequence Transformations, 2019
(arXiv 1905.06118).

Every function takes and gives a batch, `piano_roll` uint8 (batch, drums, steps) and, where it
matters, `timing` float32 (batch, drums, steps), and leaves its arguments as they are.
"""

import torch

from .configuration_musicvae import MusicVAEConfig
from .drum_patterns import DEFAULT_VELOCITY

# The drum that taps are played on; Magenta's models expect them there. It is the open hi-hat.
TAP_DRUM = 3

Drums = tuple[torch.Tensor, torch.Tensor]


def apply_input_transform(
    config: MusicVAEConfig, piano_roll: torch.Tensor, timing: torch.Tensor
) -> Drums:
    """The drums of which the encoder's input is made. Twice is the same as once."""
    match config.input_transform:
        case "humanize":
            return remove_velocity(piano_roll), torch.zeros_like(timing)
        case "tap":
            return tap(piano_roll, timing)
        case "tap_fixed_velocity":
            taps, timing = tap(piano_roll, timing)
            return remove_velocity(taps), timing
        case "remove_drums":
            return remove_drums(piano_roll, timing, config.removed_drums)
        case _:
            return piano_roll, timing


def remove_velocity(piano_roll: torch.Tensor) -> torch.Tensor:
    """Every hit equally loud."""
    return (piano_roll > 0).to(torch.uint8) * DEFAULT_VELOCITY


def tap(piano_roll: torch.Tensor, timing: torch.Tensor) -> Drums:
    """The loudest hit of each step, played on `TAP_DRUM`: the rhythm without the drums."""
    loudest, drum = piano_roll.max(1, keepdim=True)
    taps, taps_timing = torch.zeros_like(piano_roll), torch.zeros_like(timing)
    taps[:, TAP_DRUM] = loudest.squeeze(1)
    taps_timing[:, TAP_DRUM] = timing.gather(1, drum).squeeze(1)
    return taps, taps_timing


def follow_taps(
    config: MusicVAEConfig, drums: Drums, piano_roll: torch.Tensor, timing: torch.Tensor
) -> Drums:
    """Drums that were made for taps, with what the taps say of them: each step has the timing of
    its tap, and its loudest hit the velocity, if taps have one.

    Args:
        config: of the model that made the drums; where it has hits alone they stay as they are.
        drums: piano roll and timing.
        piano_roll, timing: the drums that were tapped.
    """
    if not config.models_expression:
        return drums
    velocity, drum = piano_roll.max(1, keepdim=True)
    made, made_timing = drums
    tapped = (velocity > 0) & (made > 0)
    made_timing = timing.gather(1, drum).where(tapped, made_timing)
    if config.reads_velocity:
        loudest = made == made.amax(1, keepdim=True)
        made = torch.where(loudest, velocity, made.minimum(velocity)).where(tapped, made)
    return made, made_timing


def remove_drums(piano_roll: torch.Tensor, timing: torch.Tensor, drums: list[int]) -> Drums:
    """Silences the given drums."""
    kept = torch.ones(piano_roll.shape[1], 1, dtype=torch.uint8, device=piano_roll.device)
    kept[list(drums)] = 0
    return piano_roll * kept, timing * kept


def drop_hits(
    piano_roll: torch.Tensor,
    timing: torch.Tensor,
    max_probability: float,
    generator: torch.Generator | None = None,
) -> Drums:
    """Silences hits at random, soft ones rather than loud ones.

    Each sequence draws its probability evenly from 0 to `max_probability`; a hit is dropped with
    that probability times 1 - velocity / 127, but at least times 0.2.
    """
    device = piano_roll.device
    probability = max_probability * torch.rand(
        len(piano_roll), 1, 1, generator=generator, device=device
    )
    softness = (1 - piano_roll / 127).clamp_(min=0.2)
    draws = torch.rand(piano_roll.shape, generator=generator, device=device)
    kept = draws >= probability * softness
    return piano_roll * kept, timing * kept
