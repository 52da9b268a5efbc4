"""The `datasets` builder of the Groove MIDI Dataset."""

import csv
import functools
import hashlib
import os
import socket
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import datasets
import numpy as np
import pytest
from factories import INFO_COLUMNS, drum_file, note_on

from processing import GrooveMIDI, MusicVAEProcessor, groove_midi, midi_processor
from processing.drum_kit import DRUM_NAMES
from processing.errors import DatasetFolderError, MidiFormatError
from processing.groove_midi import DOWNLOAD_ATTEMPTS

# drummer, style, bpm, beat_type, time_signature, midi_filename, split; and the number of bars
PERFORMANCES = [
    ("drummer1", "funk/groove1", "138", "beat", "4-4", "drummer1/s1/1_funk.mid", "train", 7),
    ("drummer1", "rock", "90", "beat", "4-4", "drummer1/s1/2_rock.mid", "train", 4),
    ("drummer2", "rock", "90", "fill", "4-4", "drummer2/s1/1_rock.mid", "train", 2),
    ("drummer2", "jazz", "160", "beat", "3-4", "drummer2/s1/2_jazz.mid", "train", 8),
    ("drummer1", "latin", "110", "beat", "4-4", "drummer1/s2/1_latin.mid", "validation", 5),
    ("drummer2", "hiphop", "95", "beat", "4-4", "drummer2/s2/1_hiphop.mid", "test", 6),
]


@pytest.fixture
def rows() -> list[dict[str, str]]:
    names = ["drummer", "style", "bpm", "beat_type", "time_signature", "midi_filename", "split"]
    return [dict(zip(names, performance[:-1], strict=True)) for performance in PERFORMANCES]


@pytest.fixture
def groove(tmp_path, rows, write_drums) -> Path:
    """A small dataset in Groove's layout."""
    folder = tmp_path / "download" / "groove"
    for seed, (*_, bpm, _, _, name, _, bars) in enumerate(PERFORMANCES):
        write_drums(folder / name, bars, seed, float(bpm))
    write_info(folder, rows)
    return folder


def write_info(folder: Path, rows: list[dict[str, str]], columns: list[str] = INFO_COLUMNS) -> None:
    with open(folder / "info.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def archive(tmp_path, groove, monkeypatch) -> Path:
    """The small dataset as a zip that passes for the official one."""
    path = tmp_path / "served" / "groove.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(groove.rglob("*")):
            file.write(member, member.relative_to(groove.parent))
    make_official(path, monkeypatch)
    return path


def make_official(path: Path, monkeypatch) -> None:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(GrooveMIDI, "ARCHIVE_SHA256", sha256)


@pytest.fixture
def faults() -> list[int | str | None]:
    """Of the next requests for the archive: a status, "drop", "stall" or None."""
    return []


@pytest.fixture
def url(archive, faults, monkeypatch):
    """The address of that zip on a web server."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            fault = faults.pop(0) if faults else None
            if isinstance(fault, int):
                self.send_error(fault)
            elif fault is None:
                super().do_GET() if self.command == "GET" else super().do_HEAD()
            else:
                data = archive.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                if fault == "stall":
                    closed.wait(10)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    closed = threading.Event()
    handler = functools.partial(Handler, directory=archive.parent)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(groove_midi, "FIRST_WAIT", 0)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        monkeypatch.setattr(GrooveMIDI, "ARCHIVE_URL", address)
        yield address
        closed.set()
        server.shutdown()


@pytest.fixture
def prepare(tmp_path):
    def prepare(data_dir=None, num_proc=None, **kwargs) -> datasets.DatasetDict:
        builder = GrooveMIDI(data_dir=data_dir, cache_dir=tmp_path / "cache", **kwargs)
        builder.download_and_prepare(num_proc=num_proc)
        return builder.as_dataset()

    return prepare


def examples(dataset) -> list[dict]:
    """All examples of a cached or streamed dataset, comparable."""
    return [
        {
            name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
            for name, value in example.items()
        }
        for split in sorted(dataset)
        for example in dataset[split].with_format("numpy")
    ]


def prepared_files(tmp_path: Path) -> list[Path]:
    files = (tmp_path / "cache").glob("groove_midi/**/*")
    return [path for path in files if path.is_file() and path.suffix != ".lock"]


# What an example is


def test_an_example_has_these_columns(prepare, groove):
    assert prepare(groove)["train"].features == datasets.Features(
        {
            "piano_roll": datasets.Array2D((9, 64), "uint8"),
            "timing": datasets.Array2D((9, 64), "float32"),
            "bpm": datasets.Value("float32"),
            "style": datasets.Value("string"),
            "drummer": datasets.Value("string"),
            "beat_type": datasets.Value("string"),
            "midi_filename": datasets.Value("string"),
            "start_bar": datasets.Value("int32"),
        }
    )


def test_windows_are_those_of_the_processor(prepare, groove):
    processor = MusicVAEProcessor(pitch_map="roland_td11", hop_bars=1, adjust_mode="bars")
    name = "drummer2/s2/1_hiphop.mid"
    windows = processor.training_windows(groove / name)
    test = prepare(groove)["test"].with_format("numpy")[:]
    np.testing.assert_array_equal(test["piano_roll"], windows.piano_roll)
    np.testing.assert_array_equal(test["timing"], windows.timing)
    np.testing.assert_array_equal(test["start_bar"], windows.start_bar)
    assert set(test["midi_filename"]) == {name}


def test_pitches_are_those_of_the_roland_kit(prepare, groove):
    tom_rim = 58
    recording = drum_file(note_on(0, tom_rim), note_on(3 * 1920, tom_rim))
    (groove / "drummer1/s1/2_rock.mid").write_bytes(recording)
    roll = np.array(prepare(groove)["train"][-1]["piano_roll"])
    assert [DRUM_NAMES[drum] for drum in np.flatnonzero(roll.any(axis=1))] == ["low tom"]


def test_labels_are_those_of_info_csv(prepare, groove):
    example = prepare(groove)["train"][0]
    assert {name: example[name] for name in ("bpm", "style", "drummer", "beat_type")} == {
        "bpm": 138.0,
        "style": "funk/groove1",
        "drummer": "drummer1",
        "beat_type": "beat",
    }


def test_only_performances_in_four_four_that_fill_a_window_are_used(prepare, groove):
    train = prepare(groove)["train"]
    assert list(zip(train["midi_filename"], train["start_bar"], strict=True)) == [
        ("drummer1/s1/1_funk.mid", 0),
        ("drummer1/s1/1_funk.mid", 1),
        ("drummer1/s1/1_funk.mid", 2),
        ("drummer1/s1/1_funk.mid", 3),
        ("drummer1/s1/2_rock.mid", 0),
    ]


@pytest.mark.parametrize(
    ("arguments", "name", "steps", "num_train"),
    [
        pytest.param({}, "4bar", 64, 5, id="default"),
        pytest.param({"hop_bars": 4}, "4bar", 64, 2, id="hop"),
        pytest.param({"config_name": "2bar"}, "2bar", 32, 10, id="2bar"),
        pytest.param({"bars": 5}, "5bar", 80, 3, id="another length"),
        pytest.param({"steps_per_bar": 24}, "4bar", 96, 5, id="triplet grid"),
    ],
)
def test_arguments_decide_the_windows(prepare, groove, arguments, name, steps, num_train):
    train = prepare(groove, **arguments)["train"]
    assert train.info.config_name == name
    assert train.features["piano_roll"].shape == (9, steps)
    assert len(train) == num_train


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"bars": 0}, "bars: found 0", id="no bars"),
        pytest.param({"hop_bars": 0}, "hop_bars: found 0", id="no hop"),
        pytest.param({"config_name": "3bar"}, "'3bar' not found", id="unknown config"),
        pytest.param({"hop": 4}, "doesn't have a 'hop' key", id="unknown argument"),
    ],
)
def test_a_bad_argument_is_refused(groove, arguments, message):
    with pytest.raises(ValueError, match=message):
        GrooveMIDI(data_dir=groove, **arguments)


def test_a_split_without_windows_is_left_out(prepare, groove):
    with pytest.warns(UserWarning, match="groove: (validation|test) has no windows"):
        assert prepare(groove, bars=7).num_rows == {"train": 1}


def test_a_dataset_without_windows_is_refused(prepare, groove):
    with (
        pytest.warns(UserWarning, match="has no windows"),
        pytest.raises(DatasetFolderError, match="groove: found no recording that fills .* 8 bars"),
    ):
        prepare(groove, bars=8)


# The ways to the same examples


def test_two_processes_give_the_same_as_one(prepare, groove):
    one = examples(prepare(groove))
    two = examples(prepare(groove, num_proc=2, config_id="two"))
    assert one == two


def test_a_streaming_dataset_gives_the_same_as_a_cached_one(prepare, groove):
    assert examples(GrooveMIDI(data_dir=groove).as_streaming_dataset()) == examples(prepare(groove))


def test_archive_folder_and_its_parent_give_the_same(prepare, groove, archive):
    expected = examples(prepare(groove))
    assert examples(prepare(archive)) == expected
    assert examples(prepare(groove.parent)) == expected
    assert examples(GrooveMIDI(data_dir=archive).as_streaming_dataset()) == expected


def test_the_archive_is_downloaded_where_no_data_dir_is_given(prepare, groove, url):
    expected = examples(prepare(groove))
    assert examples(prepare()) == expected
    assert examples(GrooveMIDI().as_streaming_dataset()) == expected


def test_streaming_reads_one_performance_at_a_time(groove):
    (groove / "drummer1/s1/2_rock.mid").write_bytes(b"MThd")
    train = iter(GrooveMIDI(data_dir=groove).as_streaming_dataset("train"))
    assert [next(train)["start_bar"] for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(MidiFormatError, match="2_rock.mid"):
        next(train)


# Prepared data is used again, but never for other files


def test_prepared_data_is_used_again(prepare, groove):
    first = prepare(groove)["train"].cache_files
    modified = os.stat(first[0]["filename"]).st_mtime_ns
    again = prepare(groove)["train"].cache_files
    assert again == first
    assert os.stat(again[0]["filename"]).st_mtime_ns == modified


def test_a_changed_folder_gives_fresh_data(prepare, groove, rows, write_drums):
    assert prepare(groove).num_rows == {"train": 5, "validation": 2, "test": 3}
    write_drums(groove / rows[1]["midi_filename"], bars=8)
    assert prepare(groove).num_rows == {"train": 9, "validation": 2, "test": 3}
    write_info(groove, [row for row in rows if row["split"] != "test"])
    assert prepare(groove).num_rows == {"train": 9, "validation": 2}


def test_a_relative_path_is_another_folder_elsewhere(prepare, groove, tmp_path, monkeypatch):
    monkeypatch.chdir(groove.parent)
    first = prepare("groove")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "groove").symlink_to(groove)
    monkeypatch.chdir(elsewhere)
    assert prepare("groove")["train"].cache_files != first["train"].cache_files


# Bad input


@pytest.mark.parametrize("column", ["split", "midi_filename", "bpm", "time_signature", "style"])
def test_a_missing_column_is_named(prepare, groove, rows, column):
    write_info(groove, rows, [name for name in INFO_COLUMNS if name != column])
    with pytest.raises(DatasetFolderError, match=f"groove: info.csv: found no column {column}"):
        prepare(groove)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"split": "dev"}, "2_rock.mid': found 'dev', expected", id="unknown split"),
        pytest.param({"bpm": "fast"}, "2_rock.mid': found 'fast', expected", id="bpm in words"),
        pytest.param({"bpm": ""}, "2_rock.mid': found '', expected a number", id="no bpm"),
        *(
            pytest.param({"bpm": bpm}, f"found '{bpm}', expected a number from 20 to 500", id=bpm)
            for bpm in ("inf", "0", "-1", "nan", "1e308", "19.9")
        ),
        pytest.param({"midi_filename": "gone.mid"}, "'gone.mid', but there is no", id="no file"),
        pytest.param({"midi_filename": ""}, "'', but there is no such file", id="no file name"),
        pytest.param(
            {"midi_filename": "drummer1/s1/1_funk.mid"}, "1_funk.mid' twice", id="named twice"
        ),
        pytest.param({"midi_filename": "../a.mid"}, "'../a.mid', which leads out", id="parent"),
        pytest.param({"midi_filename": "a/../../a.mid"}, "which leads outside", id="grandparent"),
        pytest.param({"midi_filename": "/etc/passwd"}, "which leads outside", id="absolute"),
        pytest.param({"midi_filename": "C:\\a.mid"}, "which leads outside", id="drive"),
        pytest.param({"midi_filename": "..\\a.mid"}, "which leads outside", id="backslash"),
    ],
)
def test_a_bad_row_is_named(prepare, groove, rows, values, message):
    (groove.parent / "a.mid").write_bytes((groove / rows[0]["midi_filename"]).read_bytes())
    rows[1].update(values)
    write_info(groove, rows)
    with pytest.raises(DatasetFolderError, match="groove: info.csv: ") as caught:
        prepare(groove)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "info.csv: found no column bpm, style", id="empty"),
        pytest.param(b"\xff\xfe\x00", "info.csv: not a table in UTF-8", id="not text"),
        pytest.param(",".join(INFO_COLUMNS).encode(), "found no performance in 4/4", id="no rows"),
        pytest.param(None, "found neither info.csv nor groove/info.csv", id="absent"),
    ],
)
def test_info_csv_must_be_a_table(prepare, groove, content, message):
    (groove / "info.csv").unlink()
    if content is not None:
        (groove / "info.csv").write_bytes(content)
    with pytest.raises(DatasetFolderError, match=message):
        prepare(groove)


def test_info_csv_may_have_a_byte_order_mark(prepare, groove):
    info = groove / "info.csv"
    info.write_bytes(b"\xef\xbb\xbf" + info.read_bytes())
    assert len(prepare(groove)["train"]) == 5


def test_a_data_dir_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DatasetFolderError, match="nowhere does not exist"):
        GrooveMIDI(data_dir=tmp_path / "nowhere")


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_damaged_midi_file_is_named(prepare, groove, num_proc, tmp_path):
    (groove / "drummer1/s1/2_rock.mid").write_bytes(b"MThd")
    with pytest.raises(MidiFormatError, match="2_rock.mid: damaged"):
        prepare(groove, num_proc=num_proc)
    assert prepared_files(tmp_path) == []


def test_an_archive_with_another_checksum_is_refused(prepare, archive, tmp_path):
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(DatasetFolderError, match=r"groove.zip: found [\d,]+ bytes with sha256"):
        prepare(archive)
    assert prepared_files(tmp_path) == []


def test_what_is_no_archive_is_refused_without_being_read(prepare, tmp_path):
    huge, pipe = tmp_path / "huge.zip", tmp_path / "pipe.zip"
    huge.touch()
    os.truncate(huge, 3 << 30)  # of holes
    os.mkfifo(pipe)
    for path, found in (
        (huge, "found 3,221,225,472 bytes, expected the official archive"),
        (pipe, "found no regular file"),
        ("/dev/zero", "found no regular file"),
    ):
        with pytest.raises(DatasetFolderError, match=found):
            prepare(path)


def test_an_endless_info_csv_is_refused(prepare, groove):
    os.truncate(groove / "info.csv", 3 << 30)
    with pytest.raises(DatasetFolderError, match="info.csv: found more than 16,777,216 bytes"):
        prepare(groove)


@pytest.mark.parametrize(
    "first_faults",
    [
        pytest.param([503, 503], id="refused"),
        pytest.param([None, 503], id="refused after its head"),
        pytest.param([429, 429, 500, 500], id="refused twice"),
        pytest.param([None, "drop"], id="broken off"),
        pytest.param([None, "stall"], id="stalled"),
    ],
)
def test_a_download_that_fails_for_the_moment_is_tried_again(
    prepare, groove, url, faults, monkeypatch, first_faults
):
    monkeypatch.setattr(groove_midi, "DOWNLOAD_TIMEOUT", aiohttp.ClientTimeout(sock_read=0.2))
    faults += first_faults
    assert examples(prepare()) == examples(prepare(groove))
    assert faults == []


# What `datasets` asks for in an attempt, the archive's head first, and how often it tries.
@pytest.mark.parametrize(
    ("attempt", "attempts", "found"),
    [
        pytest.param([404, 404], 1, "404 Not Found", id="not there"),
        pytest.param([403, 403], 1, "403 Forbidden", id="forbidden"),
        pytest.param([503, 503], DOWNLOAD_ATTEMPTS, "503 Service Unavailable", id="down"),
        pytest.param([None, "drop"], DOWNLOAD_ATTEMPTS, "ClientPayloadError", id="broken off"),
    ],
)
def test_a_download_that_fails_is_named_and_not_kept(
    prepare, url, faults, tmp_path, attempt, attempts, found
):
    faults += attempt * attempts
    message = f"^{url}: found {found}.*, expected the archive: try again later, or give a copy"
    with pytest.raises(DatasetFolderError, match=message):
        prepare()
    assert faults == []
    assert prepared_files(tmp_path) == []
    assert len(prepare()["train"]) == 5


def test_a_stream_fails_as_clearly(url, faults):
    faults += [404, 404]
    with pytest.raises(DatasetFolderError, match=f"^{url}: found 404 Not Found"):
        GrooveMIDI().as_streaming_dataset()


@pytest.mark.parametrize("offline", [False, True])
def test_a_server_that_cannot_be_reached_is_named(prepare, monkeypatch, offline):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/groove.zip"
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(groove_midi, "FIRST_WAIT", 0)
        monkeypatch.setattr(GrooveMIDI, "ARCHIVE_URL", url)
        found = "OfflineModeIsEnabled" if offline else "ClientConnectorError: Cannot connect"
        with pytest.raises(DatasetFolderError, match=f"^{url}: found {found}.* copy of it as data"):
            prepare()


def test_a_bad_download_is_refused_and_not_kept(prepare, archive, url, tmp_path):
    good = archive.read_bytes()
    archive.write_bytes(good[:-1])
    with pytest.raises(DatasetFolderError, match=f"{url}: found {len(good) - 1:,} bytes"):
        prepare()
    with pytest.raises(DatasetFolderError, match="sha256"):
        GrooveMIDI().as_streaming_dataset()
    assert prepared_files(tmp_path) == []
    archive.write_bytes(good)
    assert len(prepare()["train"]) == 5


@pytest.mark.parametrize("name", ["../evil.mid", "/evil.mid", "groove/../../evil.mid"])
def test_an_archive_that_names_paths_outside_is_refused(prepare, archive, monkeypatch, name):
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(name, b"MThd")
    make_official(archive, monkeypatch)
    with pytest.raises(DatasetFolderError, match="groove.zip: found path .*evil.mid'"):
        prepare(archive)


# The real dataset


@pytest.fixture(scope="module")
def parsed_once():
    """Every file of the real dataset is parsed in the first of its tests only."""
    with pytest.MonkeyPatch.context() as patch:
        read, known = midi_processor.read_midi, {}

        def read_once(data, *arguments):
            if data not in known:
                known[data] = read(data, *arguments)
            return known[data]

        patch.setattr(midi_processor, "read_midi", read_once)
        yield


def count(stream, value=lambda example: 1) -> dict[str, int]:
    return {split: sum(map(value, stream[split])) for split in stream}


@pytest.mark.parametrize(
    ("config_name", "hop_bars", "train", "validation", "test"),
    [
        pytest.param("4bar", 4, 4_078, 504, 526, id="4 bars, hop 4"),
        pytest.param("2bar", 1, 16_531, 2_055, 2_084, id="2 bars"),
        pytest.param("16bar", 1, 12_457, 1_446, 1_096, id="16 bars"),
    ],
)
def test_groove_has_this_many_windows(
    parsed_once, shared_groove, config_name, hop_bars, train, validation, test
):
    builder = GrooveMIDI(config_name, data_dir=shared_groove, hop_bars=hop_bars)
    expected = {"train": train, "validation": validation, "test": test}
    assert count(builder.as_streaming_dataset()) == expected


def test_groove_has_this_many_hits_on_the_grid(parsed_once, shared_groove):
    stream = GrooveMIDI(data_dir=shared_groove, bars=1).as_streaming_dataset()
    hits = count(stream, lambda example: np.count_nonzero(example["piano_roll"]))
    assert hits == {"train": 322_833, "validation": 39_436, "test": 40_978}


@pytest.fixture(scope="module")
def real_windows(parsed_once, shared_groove, tmp_path_factory) -> datasets.DatasetDict:
    builder = GrooveMIDI(data_dir=shared_groove, cache_dir=tmp_path_factory.mktemp("cache"))
    builder.download_and_prepare()
    return builder.as_dataset()


def test_groove_is_prepared_with_unique_windows_in_range(real_windows):
    assert real_windows.num_rows == {"train": 15_691, "validation": 1_939, "test": 1_919}
    windows = [
        window
        for split in real_windows.values()
        for window in zip(split["midi_filename"], split["start_bar"], strict=True)
    ]
    assert len(set(windows)) == len(windows)
    columns = real_windows["validation"].with_format("numpy")[:]
    assert columns["piano_roll"].max() == 127
    assert columns["timing"].min() == -0.5
    assert 0.45 < columns["timing"].max() < 0.5


SHA256_OF_WINDOWS = {
    "train": "ddb5233f5d974858b50d0fc678561b7b49fbf872d74072204e64b748bc855652",
    "validation": "24e0116098a258e60b8450999f262ff2ebb073cbf4b23b88ddd9e8ec2a6a3cee",
    "test": "c59eb30f0ba7453d7c7bdc5b372116b8e58c4b53c47cc35c03458e431c95973c",
}


def test_grooves_windows_are_bit_for_bit_those_that_released_models_learned_from(real_windows):
    types = {"piano_roll": np.uint8, "timing": np.float32, "start_bar": np.int32, "bpm": np.float32}
    found = {}
    for split, windows in real_windows.with_format("numpy").items():
        digest = hashlib.sha256()
        for batch in windows.iter(1000):
            for name, dtype in types.items():
                digest.update(batch[name].astype(dtype).tobytes())
        found[split] = digest.hexdigest()
    assert found == SHA256_OF_WINDOWS
