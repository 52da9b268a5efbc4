"""The verbs on MIDI files: `musicvae humanize` and its like."""

import sys
import warnings
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..tasks import TAP_TEMPERATURE
from ..terminal import Parser, number, one_line, whole_number
from . import Command, options
from .jobs import RESULT_SUFFIXES, Job, jobs, one_job

if TYPE_CHECKING:
    from processing.drum_song import DrumSong


class FileVerb(NamedTuple):
    """A verb on MIDI files.

    Attributes:
        task: the verb whose released model it uses.
        method: of `Drummer`.
        summary: says what it does.
        example: a command line without the leading "musicvae".
        options: of the method besides temperature and seed, which are arguments of the verb.
        temperature: where none is given.
    """

    task: str
    method: str
    summary: str
    example: str
    options: tuple[str, ...] = ()
    temperature: float = 1.0


VERBS = {
    "reconstruct": FileVerb(
        "sample",
        "reconstruct",
        "pass drums through the model, with more or less of some attributes",
        "reconstruct my.mid --temperature 0.5 --attributes density=1",
        ("attributes",),
    ),
    "humanize": FileVerb(
        "humanize",
        "humanize",
        "give your hits the velocity and timing of a drummer",
        "humanize my.mid --strength 0.7",
        ("strength",),
    ),
    "tap": FileVerb(
        "tap",
        "tap_to_drums",
        "make drums for a rhythm that you tapped, on any pitch and channel",
        "tap my_rhythm.mid",
        temperature=TAP_TEMPERATURE,
    ),
    "add": FileVerb("add", "add_drums", "add a closed hi-hat to your drums", "add my.mid"),
    "transfer": FileVerb(
        "sample",
        "transfer_groove",
        "give your hits the feel of another file",
        "transfer my.mid --groove other.mid",
        ("groove", "strength"),
    ),
    "interpolate": FileVerb(
        "sample",
        "interpolate",
        "make a groove that leads from one file to another",
        "interpolate my.mid other.mid --num_points 5",
        ("num_points",),
    ),
    "continue": FileVerb(
        "sample",
        "continue_drums",
        "make new bars that follow yours",
        "continue my.mid --bars 8",
        ("bars",),
    ),
}


def add_option(parser: Parser, name: str) -> None:
    match name:
        case "attributes":
            options.add_attributes(parser)
        case "strength":
            parser.add_argument(
                "--strength",
                type=number(0, 1),
                default=1.0,
                help="0 keeps your velocity and timing, 1 takes the model's (default: %(default)g)",
            )
        case "groove":
            parser.add_argument(
                "--groove", metavar="FILE", required=True, help="the MIDI file that has the feel"
            )
        case "num_points":
            parser.add_argument(
                "--num_points",
                type=whole_number(2, 1000),
                default=4,
                help="windows to make, each as long as the model's (default: %(default)s)",
            )
        case "bars":
            parser.add_argument(
                "--bars", type=whole_number(1), help="new ones (default: as the model has)"
            )
        case _:
            raise ValueError(f"name: found {name}, expected an option of a verb")


def channel(word: str) -> int | str:
    return word if word == "any" else whole_number(1, 16)(word)


def add_arguments(parser: Parser, verb: FileVerb) -> None:
    if verb.method == "interpolate":
        parser.add_argument("files", metavar="FILE", nargs=2, help="from the first to the second")
    else:
        parser.add_argument(
            "files", metavar="FILE", nargs="+", help="MIDI files, folders of them, or patterns"
        )
    options.add_output_dir(parser, "MIDI, WAV and picture of each file")
    for name in verb.options:
        add_option(parser, name)
    options.add_sampling(parser, verb.temperature)
    parser.add_argument(
        "--bpm",
        type=number(0),
        default=120.0,
        help="tempo of files that name none (default: %(default)g)",
    )
    parser.add_argument(
        "--pitch_map",
        metavar="NAME",
        help="which pitches play which drum: general_midi, roland_td11 and others by name, or a "
        "JSON file (default: as the model has, general_midi)",
    )
    parser.add_argument(
        "--channel",
        type=channel,
        help="1 to 16, or any (default: 10, or the only one that has notes)",
    )
    options.add_model(parser)
    options.add_sound(parser)
    parser.add_argument(
        "--dry_run", action="store_true", help="say what would be read, and make nothing"
    )


def run(arguments: Namespace, name: str, verb: FileVerb) -> int | None:
    from tqdm.auto import tqdm

    from processing.errors import MidiError

    find = one_job if verb.method == "interpolate" else jobs
    others = [arguments.groove] if "groove" in verb.options else []
    found = find(arguments.files, arguments.output_dir, name, others)
    work = reporter(arguments, verb) if arguments.dry_run else maker(arguments, verb)
    num_failed = 0
    for job in tqdm(found, disable=None if len(found) > 1 else True, leave=False):
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                line = work(job)
        except (OSError, MidiError) as error:
            num_failed += 1
            tqdm.write(f"musicvae {name}: {one_line(error)}", file=sys.stderr)
        else:
            tqdm.write(line)
            # Once, where MIDI and sound lack the same.
            for message in dict.fromkeys(
                str(warning.message) for warning in caught if warning.category is UserWarning
            ):
                tqdm.write(f"musicvae {name}: {message}", file=sys.stderr)
    return 1 if num_failed else None


def maker(arguments: Namespace, verb: FileVerb) -> Callable[[Job], str]:
    """The function that makes the result of a job, and says what it is."""
    from processing.counted import counted

    from ..atomic import replaced
    from ..drummer import reader_for

    options.check_output(arguments)
    drummer = options.load_drummer(arguments, verb.task, **reading(arguments))
    choices = {name: getattr(arguments, name) for name in verb.options}
    if "groove" in choices:
        choices["groove"] = drummer.processor.read(arguments.groove)
    if "attributes" in choices:
        choices["attributes"] = dict(arguments.attributes)
    make = partial(
        getattr(drummer, verb.method),
        temperature=arguments.temperature,
        seed=arguments.seed,
        **choices,
    )
    reader = reader_for(verb.method, drummer.processor)

    def work(job: Job) -> str:
        songs = [reader.read(source, bpm=arguments.bpm) for source in job.sources]
        drums = make(*songs)
        midi, sound, picture = map(job.result, RESULT_SUFFIXES)
        earlier = replaced(midi, sound, picture)
        midi.parent.mkdir(parents=True, exist_ok=True)
        drums.write(midi)
        drums.write_wav(sound, arguments.soundfont)
        drums.draw(picture)
        speed = f"{drums.bpm:g} bpm" if drums.song is None else tempo(drums.song)
        hits = f"{' and '.join(map(hits_of, songs))} in, {drums.num_hits} out"
        return f"{midi}  {counted(drums.num_bars, 'bar')}, {speed}, {hits}{earlier}"

    return work


def reporter(arguments: Namespace, verb: FileVerb) -> Callable[[Job], str]:
    """The function that says what would be read for a job."""
    from processing.counted import counted

    from ..drummer import load_processor, reader_for

    place = arguments.model or verb.task
    processor = load_processor(place, arguments.backend, **reading(arguments))
    reader = reader_for(verb.method, processor)

    def work(job: Job) -> str:
        lines = []
        for source in job.sources:
            song = reader.read(source, bpm=arguments.bpm)
            bars, channel = counted(song.num_bars, "bar"), f"channel {song.layout.channel}"
            lines.append(f"{source}  {bars}, {tempo(song)}, {channel}, {hits_of(song)}")
        return "\n".join(lines)

    return work


def reading(arguments: Namespace) -> dict[str, Any]:
    """How files are read instead of as the model's processor says."""
    given = {name: getattr(arguments, name) for name in ("pitch_map", "channel")}
    return {name: value for name, value in given.items() if value is not None}


def hits_of(song: "DrumSong") -> str:
    """How many hits a song has, and what becomes of them: 13 hits (2 merged, 1 left out)"""
    from processing.counted import counted

    counts = song.counts
    left_out = sum(counts.unknown_pitches.values()) + counts.cut_off
    others = sum(counts.other_channels.values())
    lost = {"merged": counts.merged, "left out": left_out, "more on other channels": others}
    parts = ", ".join(f"{number} {what}" for what, number in lost.items() if number)
    hits = counted(counts.notes, "hit")
    return f"{hits} ({parts})" if parts else hits


def tempo(song: "DrumSong") -> str:
    """The tempo of a song, or the slowest and the fastest of it."""
    bpms = sorted(60e6 / microseconds for _, microseconds in song.layout.tempos)
    ends = dict.fromkeys(f"{bpm:.5g}" for bpm in (bpms[0], bpms[-1]))
    return f"{' to '.join(ends)} bpm"


COMMANDS = {
    name: Command(
        verb.summary,
        (verb.example,),
        partial(add_arguments, verb=verb),
        partial(run, name=name, verb=verb),
    )
    for name, verb in VERBS.items()
}
