"""Converting Magenta's checkpoints: what comes out plays what magenta.js plays, or one error says
why not.

The recorded checkpoints, and what magenta.js computed with them, are described next to them.
"""

import hashlib
import io
import json
import math
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest
import torch
import torch.nn.functional as F
from factories import Arrays, drum_file, note_on, random_variables, tempo
from huggingface_hub import ModelCard

from modeling_musicvae import MusicVAEConfig, MusicVAEModel, load_magenta_variables
from modeling_musicvae.drum_patterns import DEFAULT_VELOCITY, from_patterns
from musicvae import bounded_reading, retrying
from musicvae.conversion import MagentaCheckpointError, convert
from processing import MusicVAEProcessor
from processing.drum_kit import PITCH_MAPS
from processing.piano_roll import piano_roll, quantize

ROOT = Path(__file__).parents[1]
# All recordings; and the smallest of them, see make_golden.py.
RECORDED, GOLDEN = ROOT.parent / "shared/parity/js", ROOT / "tests/golden"
RECORDINGS = [
    "tiny_groovae_4bar",
    "tiny_groovae_4bar_sharded",
    "tiny_drums_4bar_onehot",
    "tiny_drums_4bar_onehot_q1",
    "tiny_drums_2bar_nade",
]
STEPS_PER_QUARTER = 4


# Equality with magenta.js


class Recording:
    """A converted checkpoint, loaded from its folder, and what magenta.js computed with it."""

    def __init__(self, checkpoint: Path, folder: Path):
        convert(str(checkpoint), str(folder))
        self.model = MusicVAEModel.from_pretrained(folder)
        self.processor = MusicVAEProcessor.from_pretrained(folder)
        self.expected = json.loads((checkpoint / "expected.json").read_text())
        self.sequences = self.expected["inputs_note_sequences"]
        self.output = self.model.config.output

    def numbers(self, name: str) -> torch.Tensor:
        return torch.tensor(self.expected[name], dtype=torch.float32)

    def drums(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Those that magenta.js encoded."""
        numbers = self.numbers("input_tensors").transpose(1, 2)
        if self.output == "groove":
            _, velocities, offsets = numbers.chunk(3, 1)
            return (127 * velocities).round().to(torch.uint8), -offsets / 2
        rolls = (100 * numbers[:, :9]).to(torch.uint8)
        return rolls, torch.zeros_like(rolls, dtype=torch.float32)

    def encoder_inputs(self, rolls: torch.Tensor, timings: torch.Tensor) -> torch.Tensor:
        """The encoder input that magenta.js makes of drums.

        It has hits, and whether a step is silent, but magenta.js writes that one step too early:
        `drumRoll.set(1, i, -1)` reaches into the row before. Magenta's TensorFlow, in which the
        models were trained, does not, nor do we.
        """
        inputs = self.model.head.encoder_inputs(rolls, timings).float()
        if self.output != "groove":
            inputs[..., -1] = F.pad(inputs[:, 1:, -1], (0, 1))
        return inputs

    def frames(self, source: str) -> torch.Tensor:
        """The frames of magenta.js: (batch, steps, 9 hits [+ 9 velocities + 9 offsets])."""
        if self.output != "categorical":
            return self.numbers(f"decoded_from_{source}")
        return from_patterns(torch.tensor(self.expected[f"decoded_labels_from_{source}"]), 9)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The same here."""
        model = self.model
        uniform = torch.zeros(model.config.num_steps, len(latents), model.head.num_draws)
        frames = model.decoder.sample(model._contexts(latents), 0, uniform)
        return from_patterns(frames[..., 0], 9) if self.output == "categorical" else frames


@pytest.fixture(scope="module", params=RECORDINGS)
def recording(request, tmp_path_factory) -> Recording:
    places = [folder / request.param for folder in (RECORDED, GOLDEN)]
    found = [place for place in places if place.is_dir()]
    if not found:
        pytest.skip(f"needs the checkpoint in {places[0]}")
    return Recording(found[0], tmp_path_factory.mktemp("converted") / request.param)


def largest_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape
    return (actual.float() - expected.float()).abs().max().item()


@torch.no_grad()
def test_the_posterior_mean_is_that_of_magenta_js(recording):
    inputs = recording.encoder_inputs(*recording.drums())
    assert torch.equal(inputs, recording.numbers("input_tensors"))
    mean, *_ = recording.model.encoder(inputs)
    assert largest_difference(mean, recording.numbers("encoded_mu")) < 1e-6  # found: 1e-7


@torch.no_grad()
@pytest.mark.parametrize("source", ["z", "mu"])
def test_greedy_decoding_is_that_of_magenta_js(recording, source):
    latents = recording.numbers("z" if source == "z" else "encoded_mu")
    frames, expected = recording.decode(latents), recording.frames(source)
    assert torch.equal(frames[..., :9], expected[..., :9])
    assert largest_difference(frames, expected) < 1e-6  # found: 4e-7


@torch.no_grad()
def test_note_sequences_are_encoded_as_by_magenta_js(recording):
    drums = [quantized_drums(sequence) for sequence in recording.sequences]
    rolls, timings = (torch.from_numpy(np.stack(parts)) for parts in zip(*drums, strict=True))
    assert torch.equal(rolls, recording.drums()[0])
    mean, *_ = recording.model.encoder(recording.encoder_inputs(rolls, timings))
    expected = recording.numbers("encoded_mu_from_note_sequences")
    assert largest_difference(mean, expected) < 1e-6  # found: 1e-7


def quantized_drums(sequence: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """A note sequence on the grid as the processor puts a MIDI file there, but with a resolution
    that no file has, so that onsets in seconds lose nothing that float32 keeps."""
    ticks_per_quarter = 1 << 30
    ticks, pitches, velocities = tick_notes(sequence, ticks_per_quarter)
    steps, timing = quantize(ticks, ticks_per_quarter, 4 * STEPS_PER_QUARTER)
    kit = PITCH_MAPS["general_midi"]
    drums = np.array([[pitch in drum for drum in kit].index(True) for pitch in pitches])
    return piano_roll(steps, drums, velocities, timing, sequence["totalQuantizedSteps"])


def tick_notes(
    sequence: dict[str, Any], ticks_per_quarter: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Onset in ticks, pitch and velocity of each note."""
    quarters_per_second = sequence["tempos"][0]["qpm"] / 60
    quarters = [
        note["startTime"] * quarters_per_second
        if "startTime" in note
        else note["quantizedStartStep"] / STEPS_PER_QUARTER
        for note in sequence["notes"]
    ]
    ticks = np.round(np.array(quarters) * ticks_per_quarter).astype(np.int64)
    pitches, velocities = (
        np.array([note[name] for note in sequence["notes"]]) for name in ("pitch", "velocity")
    )
    return ticks, pitches, velocities


# The finest resolution of a MIDI file in which a step is a whole number of ticks. An onset lies up
# to half a tick off that of the note sequence.
FINEST = 32764
TIMING_ERROR = 0.5 * STEPS_PER_QUARTER / FINEST


@torch.no_grad()
def test_midi_files_are_encoded_alike_as_near_as_their_ticks_allow(recording):
    windows = recording.processor([midi_file(s) for s in recording.sequences], return_tensors="pt")
    rolls, timings = recording.drums()
    assert torch.equal(windows["piano_roll"], rolls)
    assert largest_difference(windows["timing"], timings) < TIMING_ERROR + 1e-7
    inputs = recording.encoder_inputs(windows["piano_roll"], windows["timing"])
    mean, *_ = recording.model.encoder(inputs)
    tolerance = 3e-5 if timings.any() else 1e-6  # found: 1.1e-5 and 1e-7
    assert largest_difference(mean, recording.numbers("encoded_mu_from_note_sequences")) < tolerance


def midi_file(sequence: dict[str, Any]) -> bytes:
    hits = zip(*(column.tolist() for column in tick_notes(sequence, FINEST)), strict=True)
    bpm = sequence["tempos"][0]["qpm"]
    return drum_file(tempo(0, round(60e6 / bpm)), *(note_on(*hit) for hit in hits), division=FINEST)


def read_notes(data: bytes) -> list[pretty_midi.Note]:
    return pretty_midi.PrettyMIDI(io.BytesIO(data)).instruments[0].notes


def test_decoded_drums_become_the_notes_of_magenta_js(recording):
    drums = recording.model.decode(recording.numbers("z"), temperature=0)
    midis = recording.processor.batch_decode(
        drums.piano_roll, drums.timing, bpm=120, lead_in_bars=1
    )
    for midi, sequence in zip(
        midis, recording.expected["decoded_note_sequences_qpm120"], strict=True
    ):
        found = [(n.pitch, n.start - 2, n.velocity) for n in read_notes(midi.data)]
        expected = [
            (n["pitch"], n["startTime"], n["velocity"])
            if recording.output == "groove"
            else (n["pitch"], int(n["quantizedStartStep"]) / 8, DEFAULT_VELOCITY)
            for n in sequence["notes"]
        ]
        found, expected = sorted(found), sorted(expected)
        assert [(p, v) for p, _, v in found] == [(p, v) for p, _, v in expected]
        half_a_tick = 0.5 / 960
        onsets = [[onset for _, onset, _ in notes] for notes in (found, expected)]
        np.testing.assert_allclose(*onsets, rtol=0, atol=half_a_tick + 1e-6)


# Checkpoints made here


def write_checkpoint(
    folder: Path,
    variables: Arrays,
    converter: str = "DrumsConverter",
    stored_as: str = "float32",
    shard_bytes: int = 1 << 20,
    **args: Any,
) -> Arrays:
    """Writes a checkpoint as for magenta.js, and returns the numbers that it stands for."""
    folder.mkdir()
    data, weights, values = b"", [], {}
    for name, variable in variables.items():
        weight = {"name": name, "shape": variable.shape, "dtype": "float32"}
        stored, values[name] = variable.astype("<f4"), variable
        if stored_as != "float32":
            low, highest = float(variable.min()), np.iinfo(stored_as).max
            scale = (float(variable.max()) - low) / highest or 1.0
            stored = np.round((variable - low) / scale).astype(f"<{np.dtype(stored_as).str[1:]}")
            values[name] = (stored * scale + low).astype(np.float32)
            weight["quantization"] = {"dtype": stored_as, "scale": scale, "min": low}
        data += stored.tobytes()
        weights.append(weight)
    shards = [data[start : start + shard_bytes] for start in range(0, len(data), shard_bytes)]
    paths = [f"group1-shard{number}of{len(shards)}" for number in range(1, len(shards) + 1)]
    for path, shard in zip(paths, shards, strict=True):
        (folder / path).write_bytes(shard)
    spec = {"dataConverter": {"type": converter, "args": {"numSteps": 64} | args}}
    write_json(folder / "config.json", {"type": "MusicVAE"} | spec)
    write_json(folder / "weights_manifest.json", [{"paths": paths, "weights": weights}])
    return values


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def assert_same_model(folder: Path, values: Arrays, **settings: Any) -> None:
    """The folder holds the model that has the given variables."""
    found = MusicVAEModel.from_pretrained(folder)
    expected = load_magenta_variables(values, **settings)
    configs = [
        json.dumps({name: getattr(model.config, name) for name in MusicVAEConfig.__annotations__})
        for model in (found, expected)
    ]
    assert configs[0] == configs[1]
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


@pytest.fixture(scope="module")
def variables() -> Arrays:
    return random_variables(decoder="flat")[1]


@pytest.mark.parametrize("shard_bytes", [1 << 20, 1000], ids=["one shard", "crossing shards"])
@pytest.mark.parametrize("stored_as", ["float32", "uint8", "uint16"])
def test_every_number_is_as_it_is_stored(stored_as, shard_bytes, variables, tmp_path):
    backwards = dict(reversed(variables.items()))
    values = write_checkpoint(
        tmp_path / "js", backwards, stored_as=stored_as, shard_bytes=shard_bytes
    )
    convert(str(tmp_path / "js"), str(tmp_path / "model"))
    assert_same_model(tmp_path / "model", values)


KINDS = {
    "one-hot": ({}, "DrumsConverter"),
    "groove": ({"output": "groove"}, "GrooveConverter"),
    "NADE": ({"output": "nade", "nade_hidden_size": 4}, "DrumRollConverter"),
}


@pytest.mark.parametrize("bars", [2, 4])
@pytest.mark.parametrize("decoder", ["flat", "hierarchical"])
@pytest.mark.parametrize("sizes, converter", KINDS.values(), ids=KINDS)
def test_the_kind_of_model_is_inferred(sizes, converter, decoder, bars, tmp_path):
    variables = random_variables(decoder=decoder, **sizes)[1]
    segments = {"numSegments": bars} if decoder == "hierarchical" else {}
    write_checkpoint(tmp_path / "js", variables, converter, numSteps=16 * bars, **segments)
    convert(str(tmp_path / "js"), str(tmp_path / "model"))
    assert_same_model(tmp_path / "model", variables, bars=bars)
    processor = MusicVAEProcessor.from_pretrained(tmp_path / "model")
    assert (processor.bars, processor.pitch_map) == (bars, "general_midi")


TRANSFORMS = {
    "none": {"humanize": False, "tapify": None, "splitInstruments": False},
    "humanize": {"humanize": True},
    "tap_fixed_velocity": {"tapify": True, "stepsPerQuarter": 4},
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_converters_switches_become_the_input_transform(transform, tmp_path):
    variables = random_variables(output="groove", decoder="flat")[1]
    write_checkpoint(tmp_path / "js", variables, "GrooveConverter", **TRANSFORMS[transform])
    convert(str(tmp_path / "js"), str(tmp_path / "model"))
    assert_same_model(tmp_path / "model", variables, input_transform=transform)


def test_the_card_names_source_licence_and_the_checksum_of_every_shard(variables, tmp_path):
    write_checkpoint(tmp_path / "js", variables, shard_bytes=20_000)
    convert(str(tmp_path / "js"), str(tmp_path / "model"))
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.license == "apache-2.0"
    assert "Converted from js." in card.text
    for shard in (tmp_path / "js").glob("group1-*"):
        assert f"| {shard.name} | {hashlib.sha256(shard.read_bytes()).hexdigest()} |" in card.text


@pytest.mark.parametrize("bars", [None, 2])
def test_an_npz_file_of_variables_is_converted(bars, variables, tmp_path):
    np.savez(tmp_path / "variables.npz", **variables)
    convert(str(tmp_path / "variables.npz"), str(tmp_path / "model"), bars)
    assert_same_model(tmp_path / "model", variables, bars=bars or 4)


# From an address


class CheckpointHandler(SimpleHTTPRequestHandler):
    """Serves a folder, after the errors that `server.failures` has for a path."""

    def do_GET(self):
        self.server.requests.append(self.path)
        if statuses := self.server.failures.get(self.path):
            self.send_error(statuses.pop(0))
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@contextmanager
def serve(handler: Callable[..., Any]) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0)
    with serve(partial(CheckpointHandler, directory=tmp_path)) as server:
        server.requests, server.failures = [], {}
        yield server


def test_a_checkpoint_is_downloaded(server, variables, tmp_path):
    write_checkpoint(tmp_path / "js", variables, shard_bytes=20_000)
    convert(f"{server.address}/js/", str(tmp_path / "model"))
    assert_same_model(tmp_path / "model", variables)
    assert f"Converted from {server.address}/js/." in (tmp_path / "model/README.md").read_text()


def test_a_failing_server_is_asked_again(server, variables, tmp_path):
    write_checkpoint(tmp_path / "js", variables)
    server.failures["/js/config.json"] = [503, 500]
    convert(f"{server.address}/js", str(tmp_path / "model"))
    assert server.requests.count("/js/config.json") == 3


@pytest.mark.parametrize("statuses, attempts", [([404], 1), ([503] * 3, 3)], ids=["404", "503"])
def test_a_server_that_does_not_give_the_file_is_named(server, statuses, attempts, tmp_path):
    server.failures["/js/config.json"] = list(statuses)
    message = f"^{server.address}/js/config.json: HTTP Error {statuses[0]}: "
    with pytest.raises(MagentaCheckpointError, match=message):
        convert(f"{server.address}/js", str(tmp_path / "model"))
    assert len(server.requests) == attempts


def test_an_address_where_nobody_answers_is_named(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(MagentaCheckpointError, match=f"^{server.address}/js/config.json: "):
        convert(f"{server.address}/js", str(tmp_path / "model"))


# Checkpoints that cannot be converted


def edit(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """A change of one of the JSON files: in place, or to what `change` returns."""

    def damage(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        changed = change(value)
        write_json(folder / name, value if changed is None else changed)

    return damage


def spec(**args: Any) -> Callable[[Path], None]:
    return edit("config.json", lambda value: value["dataConverter"]["args"].update(args))


def tensor(**fields: Any) -> Callable[[Path], None]:
    """Changes the first tensor's description."""
    return edit("weights_manifest.json", lambda value: value[0]["weights"][0].update(fields))


def replace(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data)


def resize_shard(change: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        shard = folder / "group1-shard1of1"
        data = shard.read_bytes()
        shard.write_bytes(data[:change] if change < 0 else data + bytes(change))

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


FIRST = "encoder/cell_0/bidirectional_rnn/fw/multi_rnn_cell/cell_0/lstm_cell/kernel"
CONFIG, MANIFEST, SHARD = "config.json", "weights_manifest.json", "group1-shard1of1"
DAMAGE = {
    "no config": (remove(CONFIG), f"/{CONFIG}: No such file or directory$"),
    "no manifest": (remove(MANIFEST), f"/{MANIFEST}: No such file or directory$"),
    "no shard": (remove(SHARD), f"/{SHARD}: No such file or directory$"),
    "config not JSON": (replace(CONFIG, b"{"), f"/{CONFIG}: damaged JSON: "),
    "config not text": (replace(CONFIG, b"\xff\xfe\xff"), f"/{CONFIG}: damaged JSON: "),
    "manifest too deep": (replace(MANIFEST, b"[" * 100_000), f"/{MANIFEST}: damaged JSON: "),
    "manifest too long": (replace(MANIFEST, b" " * (1 << 20) + b"[]"), f"/{MANIFEST}: found more "),
    "config not a model's": (replace(CONFIG, b"[]"), r"found \[\], expected the type MusicVAE"),
    "another type": (
        edit(CONFIG, lambda c: c.update(type="MusicRNN")),
        "'MusicRNN'.*expected the ",
    ),
    "unknown converter": (
        edit(CONFIG, lambda c: c["dataConverter"].update(type="TrioConverter")),
        "found converter 'TrioConverter', expected one of GrooveConverter, ",
    ),
    "a converter of another output": (
        edit(CONFIG, lambda c: c["dataConverter"].update(type="GrooveConverter")),
        "found the output categorical with a GrooveConverter, expected groove$",
    ),
    "split instruments": (spec(splitInstruments=True), "found the arguments splitInstruments of "),
    "taps on the grid": (spec(tapify=True, humanize=True), "found the arguments .*tapify.* of "),
    "unknown argument": (spec(endToken=1), "found the arguments endToken of DrumsConverter"),
    "no length": (spec(numSteps=None), "found numSteps None, expected whole bars of 16$"),
    "half a bar": (spec(numSteps=24), "found numSteps 24, expected whole bars of 16$"),
    "triplets": (spec(stepsPerQuarter=6), "found stepsPerQuarter 6, expected 4$"),
    "segments of a flat decoder": (
        spec(numSegments=4),
        "found numSegments 4, expected 1 for a flat decoder of 4 bars$",
    ),
    "61 drums": (
        spec(pitchClasses=[[36]] * 61),
        "found 61 drums, expected 9, those that MusicVAEP",
    ),
    "other drums": (spec(pitchClasses=[[36]] * 9), r"found drums of the pitches \[36, 36, .*, 38,"),
    "no pitches": (spec(pitchClasses=[36]), r"found pitchClasses \[36\], expected a list of "),
    "manifest not a list": (replace(MANIFEST, b"{}"), "found {}, expected a list of groups$"),
    "a group without weights": (
        edit(MANIFEST, lambda m: m[0].pop("weights") and None),
        "expected a group of paths and weights$",
    ),
    "a tensor without shape": (tensor(shape=None), "expected a tensor's name, shape and dtype$"),
    "a negative shape": (tensor(shape=[-1, 2]), "expected a tensor's name, shape and dtype$"),
    "a shape beyond memory": (
        tensor(shape=[1 << 60, 1 << 60]),
        rf"/{MANIFEST}: found \d+ bytes of weights, expected at most 268435456$",
    ),
    "unknown dtype": (tensor(dtype="int32"), f"{FIRST}: found dtype 'int32', expected 'float32'$"),
    "unknown quantization": (
        tensor(quantization={"dtype": "float16", "scale": 1, "min": 0}),
        f"{FIRST}: found dtype 'float16', expected 'uint8' or 'uint16'$",
    ),
    "a quantization without scale": (
        tensor(quantization={"dtype": "uint8"}),
        f"{FIRST}: found .*expected a quantization's dtype, scale, min$",
    ),
    "a tensor twice": (
        edit(MANIFEST, lambda m: m[0]["weights"].append(m[0]["weights"][0])),
        f"found {FIRST} twice, expected it once$",
    ),
    "a shard twice": (
        edit(MANIFEST, lambda m: m[0].update(paths=2 * m[0]["paths"])),
        rf"/{SHARD}: found more bytes, expected at most 0$",
    ),
    "a truncated shard": (resize_shard(-1), rf"/{SHARD}: found \d+ bytes, expected \d+$"),
    "surplus bytes": (resize_shard(1), rf"/{SHARD}: found more bytes, expected at most \d+$"),
}


@pytest.mark.parametrize("damage, message", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_gives_one_clear_error(damage, message, variables, tmp_path):
    write_checkpoint(tmp_path / "js", variables)
    damage(tmp_path / "js")
    assert_refused(tmp_path, message)


def assert_refused(tmp_path: Path, message: str) -> None:
    """One error that starts with the place and says the rest, and nothing is left behind."""
    before = set(tmp_path.iterdir())
    with pytest.raises(MagentaCheckpointError, match=message) as error:
        convert(str(tmp_path / "js"), str(tmp_path / "new/model"))
    assert str(error.value).startswith(str(tmp_path / "js"))
    assert "\n" not in str(error.value)
    assert set(tmp_path.iterdir()) == before


WRONG_TENSORS = {
    "missing": (lambda v: v.pop("encoder/mu/bias"), ": found no encoder/mu/bias$"),
    "extra": (lambda v: v.update(step=np.zeros(1)), r": found unknown \['step'\]$"),
    "of a wrong shape": (
        lambda v: v.update({"encoder/mu/kernel": np.zeros((3, 4))}),
        r": found shape \(3, 4\) for encoder/mu/kernel, expected \(12, 5\)$",
    ),
}


@pytest.mark.parametrize("change, message", WRONG_TENSORS.values(), ids=WRONG_TENSORS)
def test_a_tensor_that_does_not_fit_is_named(change, message, variables, tmp_path):
    change(wrong := dict(variables))
    write_checkpoint(tmp_path / "js", wrong)
    assert_refused(tmp_path, message)


def test_a_kit_that_the_processor_does_not_know_is_refused(tmp_path):
    variables = random_variables(output="nade", num_drums=61, decoder="flat")[1]
    write_checkpoint(tmp_path / "js", variables, "DrumRollConverter")
    assert_refused(tmp_path, ": found 61 drums, expected 9, those that MusicVAEProcessor reads")


PATHS = [
    "",
    "..",
    "../js/a",
    "a/../../b",
    "/a",
    "//host/a",
    "http://host/a",
    "C:a",
    "a\\b",
    "a?b",
    3,
]


@pytest.mark.parametrize("path", PATHS)
def test_no_shard_is_read_from_elsewhere(path, variables, tmp_path):
    write_checkpoint(tmp_path / "js", variables)
    edit(MANIFEST, lambda groups: groups[0].update(paths=[path]))(tmp_path / "js")
    assert_refused(tmp_path, "found the path .*, expected a plain one inside the checkpoint$")


BAD_NPZ = {
    "no archive": lambda data: data[1:],
    "truncated": lambda data: data[: len(data) // 2],
    "a flipped bit": lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:],
}


@pytest.mark.parametrize("damage", BAD_NPZ.values(), ids=BAD_NPZ)
def test_a_damaged_npz_file_is_named(damage, variables, tmp_path):
    path = tmp_path / "variables.npz"
    np.savez(path, **variables)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MagentaCheckpointError, match=f"^{path}: damaged .npz file: "):
        convert(str(path), str(tmp_path / "model"))
    assert list(tmp_path.iterdir()) == [path]


def test_pickled_objects_are_not_loaded(tmp_path):
    path = tmp_path / "variables.npz"
    np.savez(path, encoder=np.array([{}], dtype=object))
    with pytest.raises(MagentaCheckpointError, match=f"^{path}: .*: found dtype object, expected"):
        convert(str(path), str(tmp_path / "model"))


def write_npz(path: Path, shape: tuple[int, ...], dtype: str = "<f4", version: int = 1) -> None:
    """An archive of zeros that says of its array what is given, and is small."""
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode() + b"\n"
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\x93NUMPY" + bytes([version, 0]) + length + header)


NPZ_BOMBS = {
    "many numbers": ({"shape": (10**12,)}, r"found 4\d+ bytes of weights, expected at most"),
    "long numbers": (
        {"shape": (1,), "dtype": "<U1000000"},
        "'a.npy': found dtype .*expected float",
    ),
    "a long header": (
        {"shape": (1,), "version": 2},
        r"'a.npy': found version \(2, 0\) of .npy, exp",
    ),
}


@pytest.mark.parametrize("contents, message", NPZ_BOMBS.values(), ids=NPZ_BOMBS)
def test_an_npz_file_is_not_unpacked_to_more_than_a_model(contents, message, tmp_path):
    write_npz(path := tmp_path / "bomb.npz", **contents)
    with pytest.raises(MagentaCheckpointError, match=f"^{path}: {message}"):
        convert(str(path), str(tmp_path / "model"))


def test_sizes_are_compared_before_a_model_is_made_of_them(variables, tmp_path):
    wide = {**variables, "encoder/mu/bias": np.zeros(4000, np.float32)}
    write_checkpoint(tmp_path / "js", wide)
    assert_refused(tmp_path, r": found shape \(12, 5\) for encoder/mu/kernel, exp.* 4000\)$")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(bad, variables, tmp_path):
    damaged = {**variables, "encoder/mu/bias": np.full_like(variables["encoder/mu/bias"], bad)}
    write_checkpoint(tmp_path / "js", damaged)
    assert_refused(tmp_path, ": encoder.mean.bias: found NaN or inf, expected numbers$")


@pytest.mark.parametrize("name", [CONFIG, MANIFEST, SHARD])
@pytest.mark.parametrize("kind", ["pipe", "device", "long file"])
def test_no_more_is_read_than_a_file_may_have(kind, name, variables, tmp_path):
    write_checkpoint(tmp_path / "js", variables)
    place = tmp_path / "js" / name
    place.unlink()
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    else:
        place.touch()
        os.truncate(place, 1 << 40)
    assert_refused(tmp_path, f"/{name}: found (no regular file, expected one|more bytes, expected)")


class EndlessHandler(BaseHTTPRequestHandler):
    """Sends without end: as `server.way` says, fast, or a byte now and then, also in its head."""

    def do_GET(self):
        try:
            if self.server.way == "slow head":
                self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Drums: ")
            else:
                self.send_response(200)
                if self.server.way == "long":
                    self.send_header("Content-Length", str(1 << 60))
                self.end_headers()
            while not self.server.ended.wait(0 if self.server.way == "fast" else 0.01):
                self.wfile.write(bytes(1 << 16) if self.server.way == "fast" else b" ")
        except OSError:
            pass  # the client has enough

    def log_message(self, *args):
        pass


@pytest.mark.parametrize(
    "way, message",
    [
        ("fast", "found more bytes, expected at most 1048576$"),
        ("long", r"found 1152921504606846976 bytes, expected at most 1048576$"),
        ("slow", "the server has not sent it within 1 s$"),
        ("slow head", "the server has not sent it within 1 s$"),
    ],
)
def test_a_server_that_sends_without_end_is_given_up(way, message, monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(bounded_reading, "PATIENCE", 1)
    monkeypatch.setattr(bounded_reading, "SLOWEST", 1 << 40)
    with serve(EndlessHandler) as server:
        server.way, server.ended = way, threading.Event()
        with pytest.raises(
            MagentaCheckpointError, match=f"^{server.address}/config.json: {message}"
        ):
            convert(server.address, str(tmp_path / "model"))
        server.ended.set()


def test_bars_are_for_npz_files_alone(variables, tmp_path):
    write_checkpoint(tmp_path / "js", variables)
    with pytest.raises(MagentaCheckpointError, match="^bars: found 2, expected none: config.json"):
        convert(str(tmp_path / "js"), str(tmp_path / "model"), bars=2)


def test_a_folder_with_something_in_it_is_left_alone(variables, tmp_path):
    write_checkpoint(tmp_path / "js", variables)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="^output_dir: found .*model, expected a new or an "):
        convert(str(tmp_path / "js"), str(tmp_path / "model"))
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(variables, tmp_path):
    write_checkpoint(tmp_path / "js", variables)
    (tmp_path / "model").mkdir()
    convert(str(tmp_path / "js"), str(tmp_path / "model"))
    assert_same_model(tmp_path / "model", variables)


# The command


def test_the_command_converts_and_publishes_in_one_commit(hub, environment, variables, tmp_path):
    write_checkpoint(tmp_path / "js", variables)
    command = [sys.executable, "-m", "musicvae", "convert", "js", "--output_dir", "model"]
    subprocess.run(
        [*command, "--push_to_hub", "converted"],
        cwd=tmp_path,
        env=os.environ | environment,
        check=True,
        timeout=300,
    )
    repo = hub.repo("ann/converted")
    assert [commit.title for commit in repo.history()] == [
        "Convert from Magenta",
        "initial commit",
    ]
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    assert repo.files() == files
