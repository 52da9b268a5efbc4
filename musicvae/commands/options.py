"""Arguments that several verbs have."""

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..terminal import Parser, number, whole_number

if TYPE_CHECKING:
    from ..drummer import Drummer

MAX_SEED = 2**32 - 1


def add_output_dir(parser: Parser, files: str) -> None:
    parser.add_argument(
        "-o",
        "--output_dir",
        metavar="FOLDER",
        type=Path,
        default=Path("drums"),
        help=f"for {files}; files of the same names are replaced (default: %(default)s)",
    )


def add_model(parser: Parser) -> None:
    parser.add_argument(
        "--model", help="its folder, or its name on the Hub (default: the released one)"
    )
    parser.add_argument("--device", default="cpu", help="for the model (default: %(default)s)")
    parser.add_argument(
        "--backend",
        choices=("torch", "onnx"),
        default="torch",
        help="onnx runs the exported model with onnxruntime (default: %(default)s)",
    )


def add_sampling(parser: Parser, temperature: float = 1.0) -> None:
    parser.add_argument(
        "--temperature",
        type=number(0),
        default=temperature,
        help="the higher, the more varied; 0 is greedy (default: %(default)g)",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0, MAX_SEED),
        default=0,
        help="the same one gives the same drums (default: %(default)s)",
    )


def add_attributes(parser: Parser) -> None:
    parser.add_argument(
        "--attributes",
        metavar="NAME=STRENGTH",
        type=attribute_strength,
        nargs="+",
        default=[],
        help="more or, below 0, less of density, syncopation, hihat_density, mean_velocity or "
        "swing, in standard deviations of the training data",
    )


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


def add_sound(parser: Parser) -> None:
    parser.add_argument(
        "--soundfont",
        metavar="FILE.sf2",
        type=Path,
        help="a SoundFont to play the drums on (default: a synthesised kit); a WAV ends when its "
        "last hit has died away, after the bars",
    )


def check_output(arguments: argparse.Namespace) -> None:
    """Fails, before any work, if results cannot be written or the SoundFont not be played."""
    import numpy as np

    from processing import render_soundfont

    folder = arguments.output_dir
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        raise FileExistsError(f"output_dir: found the file {place}, expected a folder")
    if not os.access(place, os.W_OK):
        raise PermissionError(f"output_dir: found {place}, expected a folder that can be written")
    if arguments.soundfont is not None:
        render_soundfont(arguments.soundfont, np.zeros((9, 16), np.uint8))


def load_drummer(arguments: argparse.Namespace, verb: str, **reading: Any) -> "Drummer":
    """The model that the arguments name, or the released one for a verb; see `drummer.load`."""
    from ..drummer import check_backend, load
    from ..finding import find_model

    check_backend(arguments.backend)
    place = find_model(arguments.model or verb)  # before torch is imported
    if arguments.backend == "torch":
        import torch
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # but for our own
        torch.set_num_threads(1)  # a step is too small to share
    return load(place, arguments.device, arguments.backend, **reading)
