"""Plays new drum grooves with a trained MusicVAE, and writes MIDI files and a picture of them.

    musicvae-sample [MODEL] --num_samples 4

Without MODEL, the released one plays that comes with the package.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import pretty_midi
import torch
from transformers.utils.logging import disable_progress_bar

from modeling_musicvae import MusicVAEModel, spherical_interpolation
from modeling_musicvae.drum_attributes import ATTRIBUTES
from modeling_musicvae.modeling_musicvae import RECIPES
from musicvae.paths import MUSICVAE_GROOVE_4BAR
from processing import MusicVAEProcessor
from processing.midi_file import MAX_BARS, MAX_BPM, MIN_BPM, pretty_midi_bytes
from processing.piano_roll import join_windows
from processing.picture import draw_piano_rolls

# A path from one draw to another has at least as many windows, or neighbours would have little in
# common.
MIN_PATH_WINDOWS = 5
MAX_PICTURED = 8  # so that the picture can be looked at


def main() -> None:
    arguments = parse_arguments(sys.argv[1:])
    disable_progress_bar()
    torch.set_num_threads(1)  # a step is too small to share: threads would wait for one another
    try:
        sample(arguments)
    except (OSError, ValueError) as error:  # what is wrong with the model or an argument
        sys.exit(f"musicvae-sample: {error}")


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("musicvae-sample", description=__doc__.splitlines()[0])
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        default=str(MUSICVAE_GROOVE_4BAR),
        help="its folder, or its name on the Hub (default: the released one)",
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("drums"),
        help="for groove-1.mid and so on, and grooves.png (default: %(default)s)",
    )
    whole_numbers = {
        "num_samples": (4, 1, 10_000, "grooves to play (default: %(default)s)"),
        "bars": (None, 1, MAX_BARS, "of each groove (default: the model's)"),
        "seed": (0, 0, 2**32 - 1, "the same one plays the same grooves (default: %(default)s)"),
    }
    for name, (default, _, _, help) in whole_numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=help)
    parser.add_argument(
        "--bpm",
        type=float,
        default=100.0,
        help=f"tempo, {MIN_BPM:g} to {MAX_BPM:g} quarters a minute (default: %(default)g)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="the higher, the wilder; 0 plays what is likeliest (default: %(default)s)",
    )
    parser.add_argument(
        "--attributes",
        metavar="NAME=STRENGTH",
        type=attribute_strength,
        nargs="+",
        default=[],
        help="more, or less, than the model would play by itself, in standard deviations of its "
        f"training data, of {', '.join(ATTRIBUTES)}",
    )
    arguments = parser.parse_args(argv)
    for name, (_, least, most, _) in whole_numbers.items():
        found = getattr(arguments, name)
        if found is not None and not least <= found <= most:
            parser.error(f"{name}: found {found}, expected {least} to {most}")
    if arguments.output_dir.exists() and not arguments.output_dir.is_dir():
        parser.error(f"output_dir: found the file {arguments.output_dir}, expected a folder")
    return arguments


def attribute_strength(word: str) -> tuple[str, float]:
    """density=1.5 -> ("density", 1.5)"""
    name, _, number = word.partition("=")
    try:
        strength = float(number)
    except ValueError:
        strength = math.nan
    if name not in ATTRIBUTES or not math.isfinite(strength):
        raise argparse.ArgumentTypeError(
            f"found {word}, expected a number for one of {', '.join(ATTRIBUTES)}, as in density=1.5"
        )
    return name, strength


def sample(arguments: argparse.Namespace) -> None:
    model, processor = load(arguments.model)
    rolls, timings = draw_grooves(
        model,
        arguments.num_samples,
        arguments.bars or model.config.bars,
        arguments.temperature,
        dict(arguments.attributes),
        arguments.seed,
    )
    midis = processor.batch_decode(rolls, timings, arguments.bpm)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    for number, midi in enumerate(midis, 1):
        path = arguments.output_dir / f"groove-{number}.mid"
        write_midi(midi, path)
        print(path)
    picture = arguments.output_dir / "grooves.png"
    pictured = min(len(rolls), MAX_PICTURED)
    draw_piano_rolls(
        rolls[:pictured],
        timings[:pictured],
        picture,
        titles=[f"groove {number}" for number in range(1, pictured + 1)],
        steps_per_bar=processor.steps_per_bar,
    )
    print(picture)


def load(name: str) -> tuple[MusicVAEModel, MusicVAEProcessor]:
    try:
        model = MusicVAEModel.from_pretrained(name).eval()
        processor = MusicVAEProcessor.from_pretrained(name)
    except OSError as error:
        raise OSError(
            f"MODEL: found {name}, expected a model folder or the name of one on the Hub: {error}"
        ) from error
    if model.config.is_conditioned:
        raise ValueError(
            f"MODEL: found {name}, which is told what to play (hits_as_controls or "
            f"input_as_controls), expected a model that plays by itself, as the "
            f"recipe {RECIPES['none']} trains it"
        )
    return model, processor


def draw_grooves(
    model: MusicVAEModel,
    num_samples: int,
    bars: int,
    temperature: float,
    attributes: dict[str, float],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """New drums of any length.

    Each groove wanders from one draw of the model's latents toward another, a step with each of
    its windows: the noise that they are made of goes along the sphere near which it lies. A longer
    groove begins as a shorter one does.

    Args:
        model: one that plays by itself, without controls.
        num_samples: grooves to draw.
        bars: of each of them.
        temperature: see `MusicVAEModel.decode`.
        attributes: what is added to all latents: see `MusicVAEModel.add_attribute`.
        seed: of all that is random.

    Returns:
        piano rolls uint8 and timings float32, (num_samples, drums, bars * steps_per_bar).

    Raises:
        ValueError: `temperature` is out of range, or there is no vector for an attribute.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (num_samples, model.config.latent_size)
    starts, ends = (torch.randn(shape, generator=generator) for _ in range(2))
    num_windows = -(-bars // model.config.bars)
    num_points = max(num_windows, MIN_PATH_WINDOWS)
    paths = [
        spherical_interpolation(start, end, num_points)
        for start, end in zip(starts, ends, strict=True)
    ]
    windows = []
    for noise in torch.stack(paths, 1)[:num_windows]:
        latents = model.latents_of(noise)
        for attribute, strength in attributes.items():
            latents = model.add_attribute(latents, attribute, strength)
        windows.append(model.decode(latents, temperature, generator))
    rolls, timings = (
        torch.stack([window[name] for window in windows], 1).numpy()
        for name in ("piano_roll", "timing")
    )
    joined = [join_windows(*groove) for groove in zip(rolls, timings, strict=True)]
    rolls, timings = (np.stack(parts) for parts in zip(*joined, strict=True))
    num_steps = bars * model.config.steps_per_bar
    return rolls[..., :num_steps], timings[..., :num_steps]


def write_midi(midi: pretty_midi.PrettyMIDI, path: Path) -> None:
    """Writes a MIDI file, replacing it where it exists."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(pretty_midi_bytes(midi))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
