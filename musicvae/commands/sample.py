"""`musicvae sample`: new drum grooves."""

import argparse
import math
from argparse import Namespace
from pathlib import Path

from ..terminal import Parser, number, whole_number
from . import Command

MAX_PICTURED = 8  # so that the picture can be looked at


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "-o",
        "--output_dir",
        metavar="FOLDER",
        type=Path,
        default=Path("drums"),
        help="for groove-1.mid and so on, and grooves.png (default: %(default)s)",
    )
    parser.add_argument(
        "--model", help="its folder, or its name on the Hub (default: the released one)"
    )
    parser.add_argument(
        "--num_samples",
        type=whole_number(1, 10_000),
        default=4,
        help="grooves to make (default: %(default)s)",
    )
    parser.add_argument(
        "--bars", type=whole_number(1), help="in each groove (default: as the model has)"
    )
    parser.add_argument(
        "--bpm",
        type=number(0),
        default=100.0,
        help="tempo in quarters a minute (default: %(default)g)",
    )
    parser.add_argument(
        "--temperature",
        type=number(0),
        default=1.0,
        help="the higher, the more varied; 0 is greedy (default: %(default)g)",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0, 2**32 - 1),
        default=0,
        help="the same one gives the same grooves (default: %(default)s)",
    )
    parser.add_argument(
        "--attributes",
        metavar="NAME=STRENGTH",
        type=attribute_strength,
        nargs="+",
        default=[],
        help="more or, below 0, less of density, syncopation, hihat_density, mean_velocity or "
        "swing, in standard deviations of the training data",
    )
    parser.add_argument("--device", default="cpu", help="for the model (default: %(default)s)")


def attribute_strength(word: str) -> tuple[str, float]:
    """density=1.5 -> ("density", 1.5)"""
    name, _, strength = word.partition("=")
    try:
        value = float(strength)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(
            f"found {word}, expected a name and a number, as in density=1.5"
        )
    return name, value


def run(arguments: Namespace) -> None:
    folder = arguments.output_dir
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"output_dir: found the file {folder}, expected a folder")

    import numpy as np
    import torch
    from transformers.utils.logging import disable_progress_bar

    from processing.picture import draw_piano_rolls

    from ..drummer import load

    disable_progress_bar()
    torch.set_num_threads(1)  # a step is too small to share: threads would wait for one another
    drummer = load(arguments.model or "sample", arguments.device)
    grooves = drummer.sample(
        arguments.num_samples,
        arguments.bars,
        arguments.temperature,
        arguments.seed,
        dict(arguments.attributes),
        arguments.bpm,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for index, drums in enumerate(grooves, 1):
        path = folder / f"groove-{index}.mid"
        drums.write(path)
        drums.write_wav(path.with_suffix(".wav"))
        print(f"{path}  {drums.num_bars} bars, {drums.bpm:g} bpm, {drums.num_hits} hits")
    pictured = grooves[:MAX_PICTURED]
    draw_piano_rolls(
        np.stack([drums.piano_roll for drums in pictured]),
        np.stack([drums.timing for drums in pictured]),
        folder / "grooves.png",
        titles=[f"groove {index}" for index in range(1, len(pictured) + 1)],
        steps_per_bar=drummer.processor.steps_per_bar,
    )
    print(folder / "grooves.png")


COMMAND = Command(
    "make new grooves",
    (
        "sample --num_samples 8 --bars 16 --bpm 120 --temperature 0.8 --seed 1 "
        "--attributes density=1.5 swing=-1",
    ),
    add_arguments,
    run,
)
