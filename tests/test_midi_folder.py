"""The `datasets` builder of a folder of MIDI files."""

import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import datasets
import numpy as np
import pytest
from factories import drum_file, note_on, tempo

from processing import GrooveMIDI, MidiFolder, MusicVAEProcessor
from processing.drum_kit import DRUM_NAMES
from processing.errors import DatasetFolderError


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "drums"
    path.mkdir()
    return path


@pytest.fixture
def fill(folder, write_drums):
    """Puts MIDI files of four bars into the folder."""

    def fill(*names: str, bars: int = 4, **kwargs) -> None:
        for seed, name in enumerate(names):
            write_drums(folder / name, bars, seed, **kwargs)

    return fill


@pytest.fixture
def prepare(folder, tmp_path):
    def prepare(num_proc: int | None = None, **kwargs) -> datasets.DatasetDict:
        builder = MidiFolder(folder, cache_dir=tmp_path / "cache", **kwargs)
        builder.download_and_prepare(num_proc=num_proc)
        return builder.as_dataset()

    return prepare


@pytest.fixture
def prepare_with_warnings(prepare):
    def prepare_with_warnings(**kwargs) -> tuple[datasets.DatasetDict, list[str]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            dataset = prepare(**kwargs)
        return dataset, [str(w.message) for w in caught if w.category is UserWarning]

    return prepare_with_warnings


def files_of(dataset: datasets.DatasetDict) -> dict[str, set[str]]:
    return {split: set(examples["midi_filename"]) for split, examples in dataset.items()}


def numbered(numbers: Iterable[int]) -> list[str]:
    return [f"{number}.mid" for number in numbers]


def first_hit(dataset: datasets.DatasetDict) -> tuple[str, int]:
    """Drum and step of the first hit of the first window."""
    step, drum = np.argwhere(np.array(dataset["train"][0]["piano_roll"]).T)[0]
    return DRUM_NAMES[drum], step


KICK_AND_RIDE = ((9, 36), (2, 51))  # channels, from 0, and pitches


# What an example is


def test_windows_are_those_of_the_processor(prepare, fill, folder):
    fill("train/a.mid", bars=6, bpm=100)
    processor = MusicVAEProcessor(hop_bars=1, adjust_mode="bars")
    windows = processor.training_windows(folder / "train/a.mid")
    train = prepare()["train"].with_format("numpy")[:]
    for name in ("piano_roll", "timing", "start_bar", "bpm"):
        np.testing.assert_array_equal(train[name], getattr(windows, name))
    np.testing.assert_allclose(train["bpm"], 100)


@pytest.mark.parametrize(
    ("arguments", "steps", "num_train"),
    [
        pytest.param({}, 64, 5, id="defaults"),
        pytest.param({"hop_bars": 4}, 64, 2, id="hop"),
        pytest.param({"bars": 2}, 32, 7, id="two bars"),
        pytest.param({"steps_per_bar": 24}, 96, 5, id="triplet grid"),
    ],
)
def test_arguments_decide_the_windows(prepare, fill, arguments, steps, num_train):
    fill("train/a.mid", bars=8)
    train = prepare(**arguments)["train"]
    assert train.features["piano_roll"].shape == (9, steps)
    assert len(train) == num_train


def test_the_pitch_map_decides_the_drums(prepare, folder):
    pitch = 58  # the rim of a tom on the Roland kit, a vibraslap in General MIDI
    (folder / "a.mid").write_bytes(drum_file(note_on(0, pitch), note_on(3 * 1920, pitch)))
    drums = {
        pitch_map: first_hit(prepare(pitch_map=pitch_map))[0]
        for pitch_map in ("roland_td11", "general_midi")
    }
    assert drums == {"roland_td11": "low tom", "general_midi": "crash"}


def test_a_users_pitch_map_decides_the_drums_and_a_changed_one_gives_fresh_data(
    prepare, folder, tmp_path
):
    (folder / "a.mid").write_bytes(drum_file(note_on(0, 8), note_on(3 * 1920, 8)))
    path, drums = tmp_path / "kit.json", []
    for order in (DRUM_NAMES, DRUM_NAMES[::-1]):
        path.write_text(json.dumps({name: [number] for number, name in enumerate(order)}))
        drums.append(first_hit(prepare(pitch_map=path))[0])
    assert drums == ["ride", "kick"]


def test_the_channel_decides_which_notes_are_read(prepare, folder):
    events = [note_on(bar * 1920, pitch, 99, ch) for bar in range(4) for ch, pitch in KICK_AND_RIDE]
    (folder / "a.mid").write_bytes(drum_file(*events))
    drums = [first_hit(prepare(channel=channel))[0] for channel in ("auto", 3)]
    assert drums == ["kick", "ride"]


def test_a_window_has_the_tempo_at_its_start(prepare, folder):
    changes = [tempo(0, 500_000), tempo(1920, 400_000)]
    kicks = [note_on(bar * 1920) for bar in range(5)]
    (folder / "a.mid").write_bytes(drum_file(*changes, *kicks))
    assert prepare()["train"]["bpm"] == [120, 150]


def test_the_adjust_mode_decides_where_music_starts(prepare, folder):
    sixteenth = 120
    events = [note_on(step * sixteenth) for step in range(20, 96, 8)]
    (folder / "a.mid").write_bytes(drum_file(*events))
    steps = {
        adjust_mode: first_hit(prepare(adjust_mode=adjust_mode))[1]
        for adjust_mode in ("bars", "first_onset", "none")
    }
    assert steps == {"bars": 4, "first_onset": 0, "none": 20}


def test_examples_can_be_concatenated_with_those_of_groove(prepare, fill):
    fill("train/a.mid")
    train = prepare()["train"]
    assert train.features == GrooveMIDI().info.features
    assert {train[0][name] for name in ("style", "drummer", "beat_type")} == {""}


def test_two_processes_give_the_same_as_one(prepare, fill):
    fill(*numbered(range(6)))
    one, two = prepare(), prepare(num_proc=2, config_id="two")
    assert {split: one[split].to_list() for split in one} == {
        split: two[split].to_list() for split in two
    }


def test_a_streaming_dataset_gives_the_same_as_a_cached_one(prepare, fill, folder):
    fill(*numbered(range(6)))
    cached = prepare()
    for split, stream in MidiFolder(folder).as_streaming_dataset().items():
        expected = cached[split].to_list()
        found = [{k: getattr(v, "tolist", lambda v=v: v)() for k, v in e.items()} for e in stream]
        assert found == expected


# Which files


def test_files_are_found_in_subfolders_and_whatever_the_case_of_their_suffix(prepare, fill, folder):
    names = {"train/a.mid", "train/deep/er/b.MID", "train/c.midi", "train/d.kar", "train/e.smf"}
    fill(*names, "train/._d.mid")
    (folder / "train/notes.txt").write_text("not music")
    assert files_of(prepare()) == {"train": names}


def test_linked_folders_are_followed_and_cycles_are_cut(prepare_with_warnings, fill, folder):
    fill("train/a.mid", "../library/b.mid", "../library/deep/c.mid")
    (folder / "train/library").symlink_to(folder.parent / "library")
    (folder / "../library/deep/up").symlink_to(folder.parent / "library")
    (folder / "train/again").symlink_to(folder)
    (folder / "train/nowhere.mid").symlink_to(folder / "nowhere")
    dataset, (message,) = prepare_with_warnings()
    assert files_of(dataset) == {
        "train": {"train/a.mid", "train/library/b.mid", "train/library/deep/c.mid"}
    }
    assert message.splitlines()[1:] == [
        "  2 read, but: a link to a folder that is read already: train/again, train/library/deep/up"
    ]


def test_a_name_that_is_not_text_is_kept_readable(prepare, fill, folder):
    fill("train/a.mid")
    try:
        os.rename(folder / "train/a.mid", os.fsencode(folder) + b"/train/caf\xe9.mid")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    assert files_of(prepare()) == {"train": {"train/caf\\udce9.mid"}}


def test_subfolders_are_splits(prepare, fill):
    fill("train/a.mid", "train/b.mid", "validation/a.mid", "test/x/c.mid")
    assert files_of(prepare()) == {
        "train": {"train/a.mid", "train/b.mid"},
        "validation": {"validation/a.mid"},
        "test": {"test/x/c.mid"},
    }


def test_files_beside_the_subfolders_of_splits_are_reported(prepare_with_warnings, fill, folder):
    fill("train/a.mid", "b.mid", "other/c.mid")
    dataset, (message,) = prepare_with_warnings()
    assert files_of(dataset) == {"train": {"train/a.mid"}}
    assert message.splitlines()[1:] == [
        "  2 left out: outside of the subfolders train, validation, test: b.mid, other/c.mid"
    ]


@pytest.mark.parametrize("num_copies", [1, 3])
def test_the_same_drums_are_in_one_split(prepare, fill, folder, num_copies):
    fill(*numbered(range(20)))
    for number in range(20):
        for copy in range(num_copies):
            data = (folder / f"{number}.mid").read_bytes()
            (folder / f"{number}-copy-{copy}.mid").write_bytes(data)
    files = files_of(prepare())
    assert {split: len(names) for split, names in files.items()} == {
        "train": 16 * (1 + num_copies),
        "validation": 2 * (1 + num_copies),
        "test": 2 * (1 + num_copies),
    }
    for names in files.values():
        assert {name.replace(".", "-").partition("-")[0] + ".mid" for name in names} <= names


def test_a_copy_in_another_split_is_left_out(prepare_with_warnings, fill, folder):
    fill("train/a.mid", "test/b.mid")
    (folder / "test/c.mid").write_bytes((folder / "train/a.mid").read_bytes())
    dataset, (message,) = prepare_with_warnings()
    assert files_of(dataset) == {"train": {"train/a.mid"}, "test": {"test/b.mid"}}
    assert message.splitlines()[1:] == [
        "  1 left out: the same drums as a file of another split: test/c.mid"
    ]


@pytest.mark.parametrize(
    ("num_files", "num_in_split"),
    [
        (1, {"train": 1}),
        (2, {"train": 1, "validation": 1}),
        (3, {"train": 1, "validation": 1, "test": 1}),
        (19, {"train": 17, "validation": 1, "test": 1}),
        (20, {"train": 16, "validation": 2, "test": 2}),
    ],
)
def test_without_subfolders_files_are_split_into_tenths(prepare, fill, num_files, num_in_split):
    names = numbered(range(num_files))
    fill(*names, bars=5)
    dataset = prepare()
    files = files_of(dataset)
    assert {split: len(found) for split, found in files.items()} == num_in_split
    assert sorted(name for found in files.values() for name in found) == sorted(names)
    assert dataset.num_rows == {split: 2 * number for split, number in num_in_split.items()}


def test_the_seed_decides_the_split(prepare, fill):
    fill(*numbered(range(20)))
    assert files_of(prepare(seed=0)) == files_of(prepare(seed=0, config_id="again"))
    assert files_of(prepare(seed=0)) != files_of(prepare(seed=1))


def test_the_split_is_the_same_on_every_machine(prepare, fill):
    fill(*numbered(range(10)))
    files = files_of(prepare())
    assert (files["validation"], files["test"]) == ({"4.mid"}, {"0.mid"})


def test_more_files_leave_most_in_their_split(prepare, fill):
    fill(*numbered(range(20)))
    before = files_of(prepare())
    fill(*numbered(range(24)))
    after = files_of(prepare())
    moved = {name for split in before for name in before[split] - after[split]}
    assert len(moved) <= 4


# Prepared data is used again, but never for other files


def test_prepared_data_has_a_folder_of_its_own(folder, tmp_path):
    builders = MidiFolder(folder, cache_dir=tmp_path), GrooveMIDI(cache_dir=tmp_path)
    parts = [Path(builder.cache_dir).relative_to(tmp_path).parts[0] for builder in builders]
    assert parts == ["midi_folder", "groove_midi"]


def test_prepared_data_is_used_again_and_says_again_what_is_left_out(
    prepare_with_warnings, fill, folder
):
    fill("train/a.mid")
    (folder / "train/bad.mid").write_bytes(b"")
    first, messages = prepare_with_warnings()
    modified = os.stat(first["train"].cache_files[0]["filename"]).st_mtime_ns
    again, messages_again = prepare_with_warnings()
    assert again["train"].cache_files == first["train"].cache_files
    assert os.stat(again["train"].cache_files[0]["filename"]).st_mtime_ns == modified
    assert len(messages) == 1
    assert messages == messages_again


def test_a_changed_folder_gives_fresh_data(prepare, fill, folder, write_drums):
    fill("train/a.mid")
    assert prepare().num_rows == {"train": 1}
    fill("train/a.mid", "train/b.mid")
    assert prepare().num_rows == {"train": 2}
    write_drums(folder / "train/b.mid", bars=6)
    assert prepare().num_rows == {"train": 4}
    (folder / "train/a.mid").rename(folder / "train/c.mid")
    assert files_of(prepare()) == {"train": {"train/b.mid", "train/c.mid"}}


# Bad input


NOT_MIDI = "Not a Standard MIDI File of type 0 or 1, or a damaged one"


def test_a_summary_has_a_line_a_reason_with_three_examples_and_a_log_every_case(
    prepare_with_warnings, fill, folder, write_drums, tmp_path
):
    fill("train/a.mid", "train/b.mid")
    write_drums(folder / "train/short.mid", bars=3)
    for number in range(5):
        (folder / f"train/bad-{number}.mid").write_bytes(b"la la la")
    flams = [note_on(tick) for bar in range(4) for tick in (bar * 1920, bar * 1920 + 9)]
    (folder / "train/flams.mid").write_bytes(drum_file(*flams))
    os.mkfifo(folder / "train/pipe.mid")
    dataset, (message,) = prepare_with_warnings()
    assert files_of(dataset) == {"train": {"train/a.mid", "train/b.mid", "train/flams.mid"}}
    head, *lines = message.splitlines()
    log = head.removeprefix(f"{folder}: 7 files left out, and something of 1; see ")
    assert lines == [
        f"  5 left out: {NOT_MIDI}: train/bad-0.mid, train/bad-1.mid, train/bad-2.mid, ...",
        "  1 left out: A recording longer than any performance, or shorter than what is asked of "
        "it: train/short.mid",
        "  1 left out: NotAFileError: train/pipe.mid",
        "  1 read, but: merged notes: train/flams.mid",
    ]
    cases = [json.loads(line) for line in Path(log).read_text().splitlines()]
    assert len(cases) == 8
    assert {
        "reason": NOT_MIDI,
        "file": "train/bad-4.mid",
        "text": f"{folder}/train/bad-4.mid: not a MIDI file: it starts with b'la l', expected "
        "b'MThd'",
        "is_left_out": True,
    } in cases


def test_unusable_files_are_found_before_the_split_is_made(prepare, fill, folder):
    fill(*numbered(range(10)))
    before = files_of(prepare())
    for number in range(10, 40):
        (folder / f"{number}.mid").write_bytes(b"la la la")
    with pytest.warns(UserWarning, match="30 files left out"):
        assert files_of(prepare()) == before


def test_a_stream_sums_up_as_well(fill, folder):
    fill("train/a.mid")
    (folder / "train/bad.mid").write_bytes(b"")
    with pytest.warns(
        UserWarning,
        match="drums: 1 file left out, .*\n  1 left out: Not a Standard",
    ):
        MidiFolder(folder).as_streaming_dataset("train")


def test_a_folder_of_which_every_note_is_read_gives_no_warning(prepare_with_warnings, fill):
    fill("train/a.mid")
    _, messages = prepare_with_warnings()
    assert messages == []


def test_a_file_that_vanishes_is_skipped(fill, folder):
    fill("train/a.mid", "train/b.mid")
    stream = MidiFolder(folder).as_streaming_dataset("train")
    (folder / "train/a.mid").unlink()
    with pytest.warns(UserWarning) as caught:
        assert {example["midi_filename"] for example in stream} == {"train/b.mid"}
    (message,) = [str(warning.message) for warning in caught]
    assert message.startswith("skipped ") and message.endswith("train/a.mid'")


def test_a_split_of_which_no_file_can_be_used_is_left_out(prepare_with_warnings, fill):
    fill("train/a.mid")
    fill("test/b.mid", bars=1)
    dataset, (message,) = prepare_with_warnings()
    assert dataset.num_rows == {"train": 1}
    assert message.endswith("test/b.mid")


def test_a_folder_of_which_no_file_can_be_used_is_refused_with_the_reasons(
    prepare, folder, tmp_path
):
    (folder / "a.mid").write_bytes(b"")
    with pytest.raises(
        DatasetFolderError, match=f"that fill a window, found\n  1 left out: {NOT_MIDI}"
    ):
        prepare()
    assert [p for p in (tmp_path / "cache").rglob("*") if p.suffix == ".arrow"] == []


def test_a_folder_without_midi_files_is_refused(prepare, folder):
    (folder / "song.wav").write_bytes(b"RIFF")
    with pytest.raises(DatasetFolderError, match="drums: expected a folder with .*, found none"):
        prepare()


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    for path in (tmp_path / "a.mid", Path("/dev/zero")):
        if path.parent == tmp_path:
            path.write_bytes(drum_file(note_on(0)))
        with pytest.raises(DatasetFolderError, match=f"{path}: expected a folder with MIDI files"):
            MidiFolder(path).as_streaming_dataset()


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DatasetFolderError, match="nowhere does not exist"):
        MidiFolder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", ["bars", "hop_bars", "steps_per_bar", "pitch_map", "channel", "adjust_mode"]
)
def test_a_bad_argument_is_named(folder, name):
    with pytest.raises(ValueError, match=f"{name}: found 0"):
        MidiFolder(folder, **{name: 0})
