"""`musicvae sample`: new drum grooves."""

from argparse import Namespace

from ..tasks import SAMPLE_BPM, SAMPLE_TEMPERATURE
from ..terminal import Parser, number, whole_number
from . import Command, options

MAX_PICTURED = 8  # so that the picture can be looked at


def add_arguments(parser: Parser) -> None:
    options.add_output_dir(parser, "groove-1.mid, groove-1.wav and so on, and grooves.png")
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
        default=SAMPLE_BPM,
        help="tempo in quarters a minute (default: %(default)g)",
    )
    options.add_sampling(parser, SAMPLE_TEMPERATURE)
    options.add_attributes(parser)
    parser.add_argument("--style", help="one that the model knows (default: all of them)")
    options.add_model(parser)
    options.add_sound(parser)


def run(arguments: Namespace) -> None:
    import numpy as np

    from processing.counted import counted
    from processing.picture import draw_piano_rolls

    from ..atomic import replaced

    options.check_output(arguments)
    drummer = options.load_drummer(arguments, "sample")
    grooves = drummer.sample(
        arguments.num_samples,
        arguments.bars,
        arguments.temperature,
        arguments.seed,
        dict(arguments.attributes),
        arguments.style,
        arguments.bpm,
    )
    folder = arguments.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    for index, drums in enumerate(grooves, 1):
        path = folder / f"groove-{index}.mid"
        sound = path.with_suffix(".wav")
        earlier = replaced(path, sound)
        drums.write(path)
        drums.write_wav(sound, arguments.soundfont)
        bars, hits = counted(drums.num_bars, "bar"), counted(drums.num_hits, "hit")
        print(f"{path}  {bars}, {drums.bpm:g} bpm, {hits}{earlier}")
    pictured, path = grooves[:MAX_PICTURED], folder / "grooves.png"
    earlier = replaced(path)
    draw_piano_rolls(
        np.stack([drums.piano_roll for drums in pictured]),
        np.stack([drums.timing for drums in pictured]),
        path,
        titles=[f"groove {index}" for index in range(1, len(pictured) + 1)],
        steps_per_bar=pictured[0].processor.steps_per_bar,
    )
    print(f"{path}{earlier}")


COMMAND = Command(
    "make new grooves",
    (
        "sample --num_samples 8 --bars 16 --bpm 120 --temperature 0.9 --seed 1 "
        "--attributes density=1.5 swing=-1",
    ),
    add_arguments,
    run,
)
