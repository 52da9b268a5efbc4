"""How well a model undoes the transformation that it was trained to undo.

Gillick, Roberts, Engel, Eck, Bamman: Learning to Groove with Inverse Sequence Transformations, 2019
(arXiv 1905.06118).
"""

from dataclasses import replace

import numpy as np
import torch

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from modeling_musicvae.drum_transforms import apply_input_transform, remove_drums
from modeling_musicvae.expression_bins import timing_to_bin, velocity_to_bin
from modeling_musicvae.generation_musicvae import MusicVAEDecoderOutput

from . import baselines
from .bootstrap import Estimate, resampled
from .drum_metrics import Estimates, join, measure_ways
from .windows import Windows

# Of the histograms whose divergence is measured: 16 MIDI units and a ninth of a step wide, the
# resolution of a model whose configuration says nothing else.
VELOCITY_BINS, TIMING_BINS = MusicVAEConfig.velocity_bins, MusicVAEConfig.timing_bins
# Added to every count, after Jeffreys, so that an empty bin is unlikely and not impossible.
PSEUDOCOUNT = 0.5


@torch.no_grad()
def measure_transformation(
    model: MusicVAEModel, windows: Windows, train: Windows, batch_size: int, seed: int
) -> dict[str, dict[str, Estimates]]:
    """Compares what the model makes of transformed windows with the windows themselves.

    Drums are drawn at temperature 1 (sampled) or greedy, and compared with those of a baseline that
    has the same input. For hits without expression it is
    `baselines.quantized`; for taps `baselines.most_frequent_for_taps`; for drums to be added, which
    alone are then measured, `baselines.most_frequent`.

    Args:
        model: to be measured; its `input_transform` is not "none".
        windows: to be transformed.
        train: windows of the training split, for the baseline.
        batch_size: windows that the model is given at once.
        seed: of draws and intervals.

    Returns:
        That of `measure_ways`, and in `drums` also velocity_kl and timing_kl, see `divergence`.
    """
    config, generator = model.config, torch.Generator().manual_seed(seed)
    ways = {
        way: join(
            [
                transform(model, batch, temperature, generator)
                for batch in windows.batches(batch_size)
            ],
            windows,
        )
        for way, temperature in (("sampled", 1.0), ("greedy", 0.0))
    }
    ways["baseline"] = baseline(config, windows, train)
    if config.input_transform == "remove_drums":
        ways = {way: removed_alone(drums, config) for way, drums in ways.items()}
        windows = removed_alone(windows, config)
    tables = measure_ways(ways, windows, config, seed)
    for way, drums in ways.items():
        tables["drums"][way] |= measure_expression(drums, windows, seed)
    return tables


def transform(
    model: MusicVAEModel, batch: Windows, temperature: float, generator: torch.Generator
) -> MusicVAEDecoderOutput:
    """Does with drums what the model was trained to do."""
    drums = {"piano_roll": batch.piano_roll, "timing": batch.timing}
    drawn = {"temperature": temperature, "generator": generator}
    match model.config.input_transform:
        case "humanize":
            return model.humanize(batch.piano_roll, **drawn)
        case "tap" | "tap_fixed_velocity":
            return model.tap_to_drums(**drums, **drawn)
        case "remove_drums":
            return model.add_drums(**drums, **drawn)
        case other:
            raise ValueError(f"input_transform: found {other}, expected a transformation")


def baseline(config: MusicVAEConfig, windows: Windows, train: Windows) -> Windows:
    """The drums of a baseline that has the input of the model."""
    piano_roll, timing = apply_input_transform(config, windows.piano_roll, windows.timing)
    read = replace(windows, piano_roll=piano_roll, timing=timing)
    match config.input_transform:
        case "humanize":
            return baselines.quantized(train, read)
        case "tap" | "tap_fixed_velocity":
            return baselines.most_frequent_for_taps(train, read)
        case "remove_drums":
            return baselines.most_frequent(removed_alone(train, config), read)
        case other:
            raise ValueError(f"input_transform: found {other}, expected a transformation")


def removed_alone(windows: Windows, config: MusicVAEConfig) -> Windows:
    """The windows without the drums that the model is given."""
    given = sorted(set(range(config.num_drums)) - set(config.removed_drums))
    piano_roll, timing = remove_drums(windows.piano_roll, windows.timing, given)
    return replace(windows, piano_roll=piano_roll, timing=timing)


def measure_expression(drums: Windows, windows: Windows, seed: int) -> Estimates:
    """How far the velocities and timings of all hits played are from those of all true ones."""
    files = windows.file.numpy()
    velocities, true_velocities = (
        velocity_histograms(each.piano_roll) for each in (drums, windows)
    )
    timings, true_timings = (
        timing_histograms(each.piano_roll, each.timing) for each in (drums, windows)
    )
    return {
        "velocity_kl": divergence(velocities, true_velocities, files, seed),
        "timing_kl": divergence(timings, true_timings, files, seed),
    }


def velocity_histograms(piano_roll: torch.Tensor) -> np.ndarray:
    """int64 (windows, VELOCITY_BINS)."""
    return histograms(velocity_to_bin(piano_roll, VELOCITY_BINS), piano_roll > 0, VELOCITY_BINS)


def timing_histograms(piano_roll: torch.Tensor, timing: torch.Tensor) -> np.ndarray:
    """int64 (windows, TIMING_BINS)."""
    return histograms(timing_to_bin(timing, TIMING_BINS), piano_roll > 0, TIMING_BINS)


def histograms(bins: torch.Tensor, hits: torch.Tensor, num_bins: int) -> np.ndarray:
    counts = [((bins == number) & hits).sum((1, 2)) for number in range(num_bins)]
    return torch.stack(counts, 1).numpy()


def divergence(played: np.ndarray, true: np.ndarray, files: np.ndarray, seed: int) -> Estimate:
    """The KL divergence in nats of what is played from what is true, KL(played || true).

    Args:
        played, true: histograms (windows, bins), added up over windows.
        files: int (windows,), the recording that each window is from.
        seed: of the interval.
    """

    def statistic(sums: np.ndarray) -> np.ndarray:
        p, q = (counts + PSEUDOCOUNT for counts in np.split(sums, 2, axis=1))
        p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
        return (p * np.log(p / q)).sum(1)

    return resampled(np.concatenate([played, true], 1), files, statistic, seed)
