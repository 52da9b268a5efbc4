"""The verbs on MIDI files: results, their place, what is printed, and what goes wrong."""

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import drum_file, ending_at, note_on, tempo
from training_runs import tiny_model

from musicvae.cli import main
from musicvae.commands.files import VERBS
from musicvae.finding import find_model
from processing import MusicVAEProcessor
from processing.drum_song import DrumSong
from processing.piano_roll import join_windows

pytestmark = pytest.mark.usefixtures("one_cpu_thread")

READER = MusicVAEProcessor(channel="any")
BAR, STEP = 1920, 120  # ticks of the files made here
MODELS = {
    "sample": {},
    "humanize": {"input_transform": "humanize", "hits_as_controls": True},
    "tap": {"input_transform": "tap", "input_as_controls": True},
    "add": {"input_transform": "remove_drums", "removed_drums": [2]},
}
MORE_WORDS = {"transfer": "--groove song.mid", "interpolate": "song.mid"}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """The folder of a lively model for each task."""
    folder = tmp_path_factory.mktemp("models")
    for name, settings in MODELS.items():
        torch.manual_seed(0)
        model = tiny_model(decoder="flat", **settings)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
        torch.nn.init.normal_(model.attribute_vectors)
        model.save_pretrained(folder / name)
        MusicVAEProcessor().save_pretrained(folder / name)
    return {name: folder / name for name in MODELS}


@pytest.fixture
def run(models, tmp_path, monkeypatch) -> Callable[[str], int]:
    """Runs a command line in `tmp_path`, with the models made here; returns the exit code."""
    monkeypatch.chdir(tmp_path)

    def run(words: str) -> int:
        verb, *rest = words.split()
        if "--model" not in rest:
            rest += ["--model", str(models[VERBS[verb].task])]
        try:
            return main([verb, *rest]) or 0
        except SystemExit as exit:
            if isinstance(exit.code, str):
                print(exit.code)
                return 1
            return exit.code

    return run


def song_events(channel: int = 9) -> list:
    """Ten bars with two tempos and an early hit at each joint; bars five to eight are silent."""
    hits = [
        note_on(bar * BAR + step * STEP + shift, pitch, velocity, channel)
        for bar in (0, 1, 2, 3, 8, 9)
        for pitch, velocity, steps in ((36, 90, (0, 8)), (38, 70, (4, 12)), (42, 50, range(15)))
        for step in steps
        for shift in ([17] if step or bar == 0 else [-25])
    ]
    return [tempo(0, 500_000), tempo(5 * BAR, 400_000), *hits, ending_at(10 * BAR)]


@pytest.fixture
def song(tmp_path) -> DrumSong:
    """song.mid in `tmp_path`, as it is read."""
    (tmp_path / "song.mid").write_bytes(drum_file(*song_events()))
    return READER.read(tmp_path / "song.mid")


def made(verb: str, folder: str = "drums") -> DrumSong:
    return READER.read(Path(folder, f"song-{verb}.mid"))


def written(folder: str = "drums") -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*.*")}


@pytest.mark.parametrize("verb", VERBS)
def test_a_result_is_midi_sound_and_picture_and_a_line(verb, run, song, capsys):
    assert run(f"{verb} song.mid {MORE_WORDS.get(verb, '')}") == 0
    name = "song-song-interpolate" if verb == "interpolate" else f"song-{verb}"
    assert written() == {f"{name}.mid", f"{name}.wav", f"{name}.png"}
    result = READER.read(f"drums/{name}.mid")
    num_hits = np.count_nonzero(song.piano_roll)
    before = f"{num_hits} hits"
    before = f"{before} and {before}" if verb == "interpolate" else before
    after = np.count_nonzero(result.piano_roll)
    bars, bpm = {"interpolate": (16, "120"), "continue": (14, "120 to 150")}.get(
        verb, (10, "120 to 150")
    )
    line = f"drums/{name}.mid  {bars} bars, {bpm} bpm, {before} in, {after} out\n"
    assert capsys.readouterr() == (line, "")


@pytest.mark.parametrize("verb", ["reconstruct", "humanize", "tap", "add", "transfer"])
def test_a_result_takes_the_place_of_the_song(verb, run, song):
    run(f"{verb} song.mid {MORE_WORDS.get(verb, '')}")
    result = made(verb)
    assert result.num_bars == song.num_bars == 10
    assert result.layout.tempos == song.layout.tempos
    assert result.layout.end_tick == song.layout.end_tick
    assert not result.piano_roll[1].any()
    with wave.open(f"drums/song-{verb}.wav") as sound:
        assert sound.getnframes() / sound.getframerate() > 5 * 2 + 5 * 1.6


@pytest.mark.parametrize("verb", ["humanize", "transfer"])
def test_every_hit_is_kept(verb, run, song):
    run(f"{verb} song.mid {MORE_WORDS.get(verb, '')}")
    assert np.array_equal(made(verb).piano_roll > 0, song.piano_roll > 0)
    assert not np.array_equal(made(verb).piano_roll, song.piano_roll)


@pytest.mark.parametrize("verb", ["humanize", "transfer"])
def test_strength_leads_from_the_song_to_the_model(verb, run, song):
    velocities, timings = [], []
    for strength in (0, 0.5, 1):
        run(f"{verb} song.mid {MORE_WORDS.get(verb, '')} --strength {strength} -o {strength}")
        result = made(verb, str(strength))
        velocities.append(result.piano_roll.astype(float))
        timings.append(join_windows(result.timing)[:, 1:])  # a file cannot start early
    assert np.array_equal(velocities[0], song.piano_roll)
    assert np.array_equal(timings[0], join_windows(song.timing)[:, 1:])
    assert velocities[1] == pytest.approx((velocities[0] + velocities[2]) / 2, abs=0.51)
    assert timings[1] == pytest.approx((timings[0] + timings[2]) / 2, abs=1 / STEP)


def test_continue_keeps_the_given_bars_and_adds_new_ones(run, song):
    run("continue song.mid --bars 3")
    grids = [join_windows(each.piano_roll) for each in (song, made("continue"))]
    given = song.num_bars * 16
    assert made("continue").num_bars == 13
    assert np.array_equal(grids[1][:, :given], grids[0][:, :given])
    assert grids[1][:, given:].any()


def test_add_keeps_the_other_drums(run, song):
    run("add song.mid")
    others = [drum for drum in range(9) if drum != 2]
    assert np.array_equal(made("add").piano_roll[:, others], song.piano_roll[:, others])
    assert not np.array_equal(made("add").piano_roll[:, 2], song.piano_roll[:, 2])


def test_attributes_change_a_reconstruction(run, song):
    run("reconstruct song.mid")
    run("reconstruct song.mid --attributes density=3 swing=-1 -o more")
    assert not np.array_equal(
        made("reconstruct").piano_roll, made("reconstruct", "more").piano_roll
    )


@pytest.mark.parametrize(
    ("words", "written_channel"), [("", 10), ("--channel 3", 3)], ids=["any", "chosen"]
)
def test_a_tap_may_be_on_any_channel_and_pitch(words, written_channel, run, tmp_path, capsys):
    taps = [note_on(step * STEP, 100 + step % 3, 80, channel=2) for step in range(0, 64, 3)]
    (tmp_path / "song.mid").write_bytes(drum_file(*taps, ending_at(4 * BAR)))
    assert run(f"tap song.mid {words}") == 0
    assert ", 22 hits in, " in capsys.readouterr().out
    result = made("tap")
    assert result.layout.channel == written_channel
    assert not result.counts.unknown_pitches


def test_the_seed_decides_every_byte(run, song):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(f"humanize song.mid --seed {seed} -o {folder}")
    a, b, c = (
        [Path(folder, name).read_bytes() for name in sorted(written(folder))] for folder in "abc"
    )
    assert a == b
    assert not set(a) & set(c)


def test_a_tempo_is_for_files_that_name_none(run, song, tmp_path):
    (tmp_path / "none.mid").write_bytes(drum_file(note_on(0), ending_at(BAR)))
    assert run("humanize song.mid none.mid --bpm 90") == 0
    assert READER.read("drums/none-humanize.mid").layout.tempos == [(0, 666_667)]
    assert made("humanize").layout.tempos == song.layout.tempos


def test_pitches_are_read_by_the_map_that_is_chosen(run, tmp_path, capsys):
    (tmp_path / "song.mid").write_bytes(drum_file(note_on(0, 22), note_on(STEP, 35)))
    run("humanize song.mid --pitch_map roland_td11 --dry_run")
    printed, errors = capsys.readouterr()
    assert printed == "song.mid  1 bar, 120 bpm, channel 10, 2 hits (1 left out)\n"
    assert errors.startswith("musicvae humanize: song.mid: 1 of 2 notes left out, of pitches that")


def test_what_is_merged_or_left_out_is_said(run, tmp_path, capsys):
    events = [note_on(0), note_on(10), note_on(STEP, 3), note_on(0, 60, channel=1)]
    (tmp_path / "song.mid").write_bytes(drum_file(*events))
    assert run("humanize song.mid") == 0
    printed, errors = capsys.readouterr()
    assert (
        "1 bar, 120 bpm, 3 hits (1 merged, 1 left out, 1 more on other channels) in, 1 out"
        in printed
    )
    assert [line.partition(": ")[0] for line in errors.splitlines()] == ["musicvae humanize"] * 2


def test_a_dry_run_makes_nothing(run, song, tmp_path, capsys):
    assert run("humanize song.mid --dry_run") == 0
    num_hits = np.count_nonzero(song.piano_roll)
    line = f"song.mid  10 bars, 120 to 150 bpm, channel 10, {num_hits} hits\n"
    assert capsys.readouterr() == (line, "")
    assert [path.name for path in tmp_path.iterdir()] == ["song.mid"]


@pytest.mark.parametrize("words", ["humanize", "humanize --dry_run"])
def test_one_bad_file_is_reported_and_the_others_go_on(words, run, song, tmp_path, capsys):
    (tmp_path / "bad.mid").write_bytes(b"bad")
    assert run(f"{words} missing.mid bad.mid song.mid") == 1
    printed, errors = capsys.readouterr()
    assert printed.count("\n") == 1
    assert "song" in printed
    missing, bad = errors.splitlines()
    assert missing == "musicvae humanize: [Errno 2] No such file or directory: 'missing.mid'"
    assert bad.startswith("musicvae humanize: bad.mid: not a MIDI file")


def test_folders_and_patterns_are_read(run, tmp_path):
    for name in ("grooves/a.mid", "grooves/sub/b.MIDI", "grooves/notes.txt", "c1.mid", "c2.mid"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drum_file(note_on(0)))
    assert run("humanize grooves c*.mid grooves/a.mid") == 0
    names = ("a-humanize", "sub/b-humanize", "c1-humanize", "c2-humanize")
    assert written() == {f"{name}{suffix}" for name in names for suffix in (".mid", ".wav", ".png")}


def test_no_result_is_overwritten_by_another(run, tmp_path):
    for name in ("a/x.mid", "b/x.mid"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(drum_file(note_on(0), note_on(3 * STEP)))
    assert run("humanize a/x.mid b/x.mid") == 0
    names = {name for name in written() if name.endswith(".mid")}
    assert names == {"x-humanize.mid", "x-humanize-2.mid"}


@pytest.mark.parametrize(
    ("words", "result"),
    [
        ("humanize in -o in", "in/song-humanize.mid"),
        ("humanize in -o in --dry_run", "in/song-humanize.mid"),
        ("humanize in/song.mid song-humanize.mid -o .", "song-humanize.mid"),
        ("transfer song.mid --groove song-transfer.mid -o .", "song-transfer.mid"),
    ],
)
def test_a_result_that_would_replace_a_file_to_read_is_refused(words, result, run, song, capsys):
    place = Path(result)
    place.parent.mkdir(exist_ok=True)
    for path in (place, Path("in/song.mid")):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(Path("song.mid").read_bytes())
    before = place.read_bytes()
    assert run(words) == 1
    (line,) = "".join(capsys.readouterr()).splitlines()
    assert f": output_dir: found {result}, a file to read, where the result of " in line
    assert place.read_bytes() == before
    assert not written(".") - {"song.mid", "in/song.mid", result}


def test_files_that_are_replaced_are_counted(run, song, capsys):
    Path("drums").mkdir()
    Path("drums/song-humanize.wav").touch()
    for number in ("1 file", "3 files"):
        assert run("humanize song.mid") == 0
        assert capsys.readouterr().out.endswith(f" out, {number} replaced\n")


FAILURES = {
    "humanize song.mid --model in/nowhere": "model: found no folder in/nowhere, expected that of",
    "humanize song.mid --model add": "found a model trained with input_transform 'remove_drums'",
    "humanize song.mid song.mid --model {sample}": "humanize: found a model trained with",
    "humanize song.mid --pitch_map nope": "pitch_map: found 'nope', expected one of",
    "humanize song.mid --device gpu": "device: found gpu, expected one of this machine: ",
    "humanize song.mid --soundfont nope.sf2": "[Errno 2] No such file or directory: 'nope.sf2'",
    "humanize song.mid --bpm 600": "bpm: found 600.0, expected 20 to 500",
    "humanize song.mid -o song.mid": "output_dir: found the file song.mid, expected a folder",
    "humanize empty": "empty: found no MIDI file, expected some with .mid, .midi,",
    "transfer song.mid --groove nope.mid": "[Errno 2] No such file or directory: 'nope.mid'",
}


@pytest.mark.parametrize(("words", "error"), FAILURES.items(), ids=FAILURES)
def test_a_failure_is_one_line_and_code_1(words, error, run, song, models, tmp_path, capsys):
    for name in ("empty", "in"):
        (tmp_path / name).mkdir()
    assert run(words.format(**models)) == 1
    (line,) = "".join(capsys.readouterr()).splitlines()
    assert error in line
    assert list(tmp_path.rglob("*.*")) == [tmp_path / "song.mid"]


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    run, song, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert run("humanize song.mid -o a/b") == 1
    error = f"output_dir: found {tmp_path}, expected a folder that can be written"
    assert capsys.readouterr() == (f"musicvae humanize: {error}\n", "")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("humanize song.mid --strength 1.1", "--strength: found 1.1, expected a number, 0 to 1"),
        ("humanize song.mid --channel 17", "--channel: found 17, expected a whole number, 1 to 16"),
        ("transfer song.mid", "the following arguments are required: --groove"),
        ("interpolate song.mid", "the following arguments are required: FILE"),
        ("humanize", "the following arguments are required: FILE"),
    ],
)
def test_a_wrong_command_line_is_code_2(words, error, run, capsys):
    assert run(words) == 2
    assert error in capsys.readouterr().err


def test_what_is_not_released_says_how_to_train_it(monkeypatch, tmp_path):
    monkeypatch.setattr("musicvae.finding.RELEASED", tmp_path)
    with pytest.raises(FileNotFoundError, match="train_accelerate.py --config add_hihat"):
        find_model("add")
