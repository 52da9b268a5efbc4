"""The demo grooves: Groove's layout, and drumming that two hands and two feet can play."""

import csv
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from factories import INFO_COLUMNS

from processing.demo_grooves import write_demo_grooves
from processing.drum_kit import PITCH_MAPS

SIXTEENTH = 120  # ticks
KICKS, FOOT_HI_HATS, SNARES = {36}, {44}, {38, 40}
CLOSED_HI_HATS, OPEN_HI_HATS = {42, 22, 44}, {46}
STRAIGHT_STYLES = {"rock", "punk", "funk"}


def read_rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "info.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_hits(path: Path) -> np.ndarray:
    """The note-ons of a file as rows of tick, pitch, velocity."""
    ticks, hits = 0, []
    for message in mido.MidiFile(path).tracks[1]:
        ticks += message.time
        if message.type == "note_on":
            hits.append((ticks, message.note, message.velocity))
    return np.array(hits)


def read_bytes(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_demo_grooves(tmp_path_factory.mktemp("demo") / "grooves", seed=0)


@pytest.fixture(scope="module")
def rows(folder) -> list[dict[str, str]]:
    return read_rows(folder)


@pytest.fixture(scope="module")
def performances(folder, rows) -> list[tuple[dict[str, str], np.ndarray]]:
    return [(row, read_hits(folder / row["midi_filename"])) for row in rows]


def test_info_csv_has_grooves_columns_and_names_every_midi_file(folder, rows):
    assert list(rows[0]) == INFO_COLUMNS
    midi_files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.mid"))
    assert sorted(row["midi_filename"] for row in rows) == midi_files
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        number = row["id"].rsplit("/")[-1]
        style = row["style"].replace("/", "-")
        name = f"{number}_{style}_{row['bpm']}_{row['beat_type']}_4-4.mid"
        assert row["midi_filename"] == f"{row['session']}/{name}"
        assert row["session"].startswith(f"{row['drummer']}/session")


@pytest.mark.parametrize(("split", "count"), [("train", 60), ("validation", 12), ("test", 12)])
def test_every_split_has_all_styles_all_drummers_and_some_fills(rows, split, count):
    members = [row for row in rows if row["split"] == split]
    assert len(members) == count
    for column in ("style", "drummer", "beat_type"):
        assert {row[column] for row in members} == {row[column] for row in rows}
    assert {row["beat_type"] for row in members} == {"beat", "fill"}
    assert sum(row["beat_type"] == "beat" for row in members) > 0.7 * count


def test_beats_last_eight_to_sixteen_bars_and_fills_one_or_two(performances):
    for row, hits in performances:
        first, last = np.floor(hits[[0, -1], 0] / SIXTEENTH + 0.5) // 16
        # One bar more for a pickup, and one for the crash that ends the last fill.
        shortest, longest = (8, 18) if row["beat_type"] == "beat" else (1, 3)
        assert shortest <= last - first + 1 <= longest, row["id"]


def test_midi_files_are_on_the_drum_channel_with_one_tempo_and_metre(folder, rows):
    for row in rows:
        midi = mido.MidiFile(folder / row["midi_filename"])
        assert (midi.type, midi.ticks_per_beat) == (1, 480)
        (_, tempo, metre, _), (_, *messages, _) = midi.tracks
        assert (tempo.type, tempo.tempo, tempo.time) == (
            "set_tempo",
            mido.bpm2tempo(int(row["bpm"])),
            0,
        )
        assert (metre.type, metre.numerator, metre.denominator) == ("time_signature", 4, 4)
        assert metre.time == 0
        assert {message.type for message in messages} == {"note_on", "note_off"}
        assert {message.channel for message in messages} == {9}


def test_every_note_ends_before_its_drum_is_struck_again(folder, rows):
    for row in rows:
        sounding = set()
        for message in mido.MidiFile(folder / row["midi_filename"]).tracks[1]:
            if message.type == "note_on":
                assert message.note not in sounding, row["id"]
                sounding.add(message.note)
            elif message.type == "note_off":
                sounding.remove(message.note)
        assert not sounding, row["id"]


def test_duration_and_bpm_agree_with_the_midi_files(folder, rows):
    for row in rows:
        midi = pretty_midi.PrettyMIDI(str(folder / row["midi_filename"]))
        assert midi.get_end_time() == pytest.approx(float(row["duration"]), abs=2e-6)
        assert midi.get_tempo_changes()[1] == pytest.approx([float(row["bpm"])], abs=1e-3)
        assert midi.instruments[0].is_drum


def test_pitches_are_those_of_the_roland_kit_and_all_nine_drums_are_played(performances):
    pitches = {pitch for _, hits in performances for pitch in hits[:, 1].tolist()}
    assert pitches <= {pitch for drum in PITCH_MAPS["roland_td11"] for pitch in drum}
    assert pitches >= {drum[0] for drum in PITCH_MAPS["roland_td11"]}


@pytest.mark.parametrize(
    ("limbs", "most"),
    [
        pytest.param(lambda pitch: pitch not in KICKS | FOOT_HI_HATS, 2, id="hands"),
        pytest.param(lambda pitch: pitch in KICKS, 1, id="kick"),
        pytest.param(lambda pitch: pitch in FOOT_HI_HATS, 1, id="hi-hat foot"),
    ],
)
def test_limbs_suffice(performances, limbs, most):
    for row, hits in performances:
        seconds = hits[:, 0] / 480 * 60 / int(row["bpm"])
        strikes = seconds[[limbs(pitch) for pitch in hits[:, 1].tolist()]]
        # The next stroke after the most that can coincide comes no sooner than a limb returns.
        assert np.all(strikes[most:] - strikes[:-most] > 0.04), row["id"]


def test_open_and_closed_hi_hat_never_sound_together(performances):
    for row, hits in performances:
        closed = hits[np.isin(hits[:, 1], list(CLOSED_HI_HATS)), 0]
        opened = hits[np.isin(hits[:, 1], list(OPEN_HI_HATS)), 0]
        gaps = np.abs(closed[:, None] - opened[None, :])
        assert np.all(gaps > SIXTEENTH // 2), row["id"]


def test_rock_has_loud_backbeats_and_funk_has_ghosts_between_them(performances):
    def snare(style: str) -> tuple[np.ndarray, np.ndarray]:
        beats = [
            hits
            for row, hits in performances
            if (row["style"], row["beat_type"]) == (style, "beat")
        ]
        hits = np.concatenate(beats)
        hits = hits[np.isin(hits[:, 1], list(SNARES))]
        return (hits[:, 0] + SIXTEENTH // 2) // SIXTEENTH % 8, hits[:, 2]

    step, velocity = snare("rock")
    assert 95 <= np.median(velocity[step == 4]) <= 120
    step, velocity = snare("funk")
    assert 95 <= np.median(velocity[step == 4]) <= 120
    assert 15 <= np.median(velocity[step % 2 == 1]) <= 40


@pytest.mark.parametrize(
    ("style", "offbeat"),
    [("rock", 1 / 2), ("funk", 1 / 2), ("jazz/swing", 2 / 3), ("blues/shuffle", 2 / 3)],
    ids=["rock", "funk", "jazz", "shuffle"],
)
def test_the_offbeat_eighth_lies_where_the_style_has_it(performances, style, offbeat):
    hits = np.concatenate([hits for row, hits in performances if row["style"] == style])
    beat = hits[np.isin(hits[:, 1], [42, 51]), 0] / 480 % 1
    eighths = beat[(beat > 0.4) & (beat < 0.8)]
    assert np.median(eighths) == pytest.approx(offbeat, abs=0.03)


def test_timing_is_human_and_drifts_slowly(performances):
    correlations = []
    for row, hits in performances:
        if row["style"] in STRAIGHT_STYLES and row["beat_type"] == "beat":
            kicks = hits[hits[:, 1] == 36, 0]
            late = (kicks + SIXTEENTH // 2) % SIXTEENTH - SIXTEENTH // 2
            assert 0 < late.std() < SIXTEENTH / 4, row["id"]
            correlations.append(np.corrcoef(late[:-1], late[1:])[0, 1])
    assert np.mean(correlations) > 0.2


def test_drummers_differ_in_feel(performances):
    def snare_lag(drummer: str) -> float:
        hits = np.concatenate(
            [
                hits
                for row, hits in performances
                if row["drummer"] == drummer and row["style"] in STRAIGHT_STYLES
            ]
        )
        snare = hits[np.isin(hits[:, 1], list(SNARES)), 0]
        return np.mean((snare + SIXTEENTH // 2) % SIXTEENTH - SIXTEENTH // 2)

    assert snare_lag("drummer3") < 0 < snare_lag("drummer2")


def test_no_two_performances_have_the_same_hits(performances):
    rolls = {
        tuple(sorted(zip((hits[:, 0] + SIXTEENTH // 2) // SIXTEENTH, hits[:, 1], strict=True)))
        for _, hits in performances
    }
    assert len(rolls) == len(performances)


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(folder, tmp_path):
    again = read_bytes(write_demo_grooves(tmp_path / "again", seed=0))
    other = read_bytes(write_demo_grooves(tmp_path / "other", seed=1))
    assert again == read_bytes(folder)
    assert not set(other.values()) & set(again.values())


@pytest.mark.parametrize("exists", [False, True], ids=["new", "empty"])
def test_writes_to_a_new_or_an_empty_folder_and_returns_it(tmp_path, exists):
    target = tmp_path / "parent" / "grooves"
    if exists:
        target.mkdir(parents=True)
    assert write_demo_grooves(str(target)) == target
    assert list(target.parent.iterdir()) == [target]


def test_refuses_a_folder_that_is_not_empty_and_leaves_it_alone(folder):
    before = read_bytes(folder)
    with pytest.raises(FileExistsError, match="expected a new or an empty folder"):
        write_demo_grooves(folder, seed=1)
    assert read_bytes(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_refuses_a_file(tmp_path):
    (tmp_path / "grooves").write_text("mine")
    with pytest.raises(FileExistsError, match="grooves"):
        write_demo_grooves(tmp_path / "grooves")


def test_what_a_killed_process_has_left_goes_with_the_next_write(folder, tmp_path):
    (tmp_path / ".grooves.tmp/drummer1").mkdir(parents=True)
    write_demo_grooves(tmp_path / "grooves")
    assert [path.name for path in tmp_path.iterdir()] == ["grooves"]
    names = [{path.name for path in place.rglob("*")} for place in (tmp_path / "grooves", folder)]
    assert names[0] == names[1]


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    write, written = Path.write_bytes, []

    def write_until_the_disk_is_full(path, data):
        if len(written) == 10:
            raise OSError("No space left on device")
        written.append(path)
        write(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_until_the_disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        write_demo_grooves(tmp_path / "grooves")
    assert len(written) == 10
    assert list(tmp_path.iterdir()) == []
