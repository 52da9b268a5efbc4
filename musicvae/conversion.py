"""Converts a MusicVAE for drums that Magenta trained into a model folder. It needs no TensorFlow.

A checkpoint is a folder or an http(s) address in the format of magenta.js, or an .npz file of
TensorFlow's variables by their names.
"""

import hashlib
import io
import json
import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import StrictDataclassError

from modeling_musicvae import MusicVAEModel, load_magenta_variables
from processing import MusicVAEProcessor
from processing.drum_kit import NUM_DRUMS, PITCH_MAPS

from .atomic import whole_folder
from .bounded_reading import ReadingError, is_address, read_bounded
from .hub import explained_errors, open_repository

STEPS_PER_BAR = 16
SPEC, MANIFEST = "config.json", "weights_manifest.json"

# What each of magenta.js' converters for drums can belong to.
OUTPUTS = {
    "GrooveConverter": ("groove",),
    "DrumsConverter": ("categorical", "nade"),
    "DrumsOneHotConverter": ("categorical", "nade"),
    "DrumRollConverter": ("nade",),
}
# What its switches do to the input; its taps have no velocity.
INPUT_TRANSFORMS = {(): "none", ("humanize",): "humanize", ("tapify",): "tap_fixed_velocity"}
OTHER_ARGUMENTS = {"numSteps", "numSegments", "stepsPerQuarter", "pitchClasses"}
KIT = f"{NUM_DRUMS}, those that MusicVAEProcessor reads and writes"

SHARD_PATH = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)  # neither absolute nor upwards
MAX_JSON_BYTES = 1 << 20
MAX_WEIGHTS_BYTES = 1 << 28  # as float32; ten times those of Magenta's largest models of drums
MAX_DIMENSIONS, MAX_NAME_LENGTH = 4, 200

CARD = """---
{{ card_data }}
---

# {{ title }}

A MusicVAE for {{ model.bars }} bars of drums that was trained with Magenta (Roberts, Engel, Raffel,
Hawthorne, Eck: A Hierarchical Latent Vector Model for Learning Long-Term Structure in Music, 2018)
and converted to PyTorch. Its weights are those of Magenta's checkpoint; it was not trained further,
and nothing was measured for this card.

- Output: `{{ model.output }}`; {{ model.decoder }} decoder; {{ model.latent_size }} latents
- Input transformation that it was trained to undo: `{{ model.input_transform }}`
{% if converter -%}
- Input and output in Magenta: `{{ converter }}`
{% endif -%}
- Drums: nine classes of General MIDI percussion, on a grid of {{ model.steps_per_bar }} steps a bar

## Use

```python
import torch
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("PATH", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("PATH", trust_remote_code=True)
drums = model.sample(1, generator=torch.Generator().manual_seed(0))
processor.decode(drums.piano_roll[0], drums.timing[0], bpm=100).write("groove.mid")
```

`PATH` is this repository's name, or the folder that it was downloaded to. It needs `torch`
and `transformers`.

## Source and licence

Converted from {{ source }}. [Magenta](https://magenta.tensorflow.org) publishes its models under
the Apache License 2.0.

| file | sha256 |
| --- | --- |
{% for name, checksum in checksums.items() -%}
| {{ name }} | {{ checksum }} |
{% endfor %}"""


class MagentaCheckpointError(ValueError):
    """A checkpoint that is damaged, incomplete or of a kind that cannot be converted."""


def mismatch(place: str, found: Any, expected: Any) -> MagentaCheckpointError:
    return MagentaCheckpointError(f"{place}: found {found!s:.200}, expected {expected}")


def expect(condition: bool, place: str, found: Any, expected: Any) -> None:
    if not condition:
        raise mismatch(place, found, expected)


@dataclass
class Checkpoint:
    """The content of a checkpoint.

    Attributes:
        variables: TensorFlow's variables by name.
        checksums: the sha256 of every file of weights, by name.
        bars: bars that it was trained on.
        converter: Magenta's class that makes its input; one of `OUTPUTS`, if known.
        input_transform: what that does to the input, see `MusicVAEConfig`.
        num_segments: segments of its decoder, if it says so.
    """

    variables: dict[str, np.ndarray]
    checksums: dict[str, str]
    bars: int
    converter: str | None = None
    input_transform: str = "none"
    num_segments: int | None = None


def convert(checkpoint: str, output_dir: str, bars: int | None = None) -> None:
    """Writes a checkpoint of Magenta's as a model folder with processor and model card.

    Args:
        checkpoint: a folder or an http(s) address that holds config.json, weights_manifest.json
            and its shards, or the path of an .npz file of TensorFlow variables.
        output_dir: the folder to make; nothing of it stays behind if anything goes wrong.
        bars: bars of an .npz file, 4 if not given; other checkpoints say it themselves.

    Raises:
        MagentaCheckpointError: the checkpoint is damaged, incomplete or of an unknown kind.
        FileExistsError: `output_dir` is a file or a folder that is not empty.
    """
    target = Path(output_dir).resolve()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(f"output_dir: found {output_dir}, expected a new or an empty folder")
    if checkpoint.endswith(".npz"):
        original = read_npz(checkpoint, 4 if bars is None else bars)
    else:
        expect(bars is None, "bars", bars, f"none: {SPEC} has them")
        original = read_magenta_js(checkpoint)
    model = build_model(checkpoint, original)
    bars = original.bars
    processor = MusicVAEProcessor(bars=bars, hop_bars=bars, pitch_map="general_midi")
    with whole_folder(target) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_card(folder, checkpoint, original, model)


def build_model(checkpoint: str, original: Checkpoint) -> MusicVAEModel:
    try:
        model = load_magenta_variables(original.variables, original.bars, original.input_transform)
    except (ValueError, StrictDataclassError) as error:
        *_, reason = str(error).splitlines()
        raise MagentaCheckpointError(f"{checkpoint}: {reason.strip():.400}") from error
    for name, parameter in model.named_parameters():
        expect(bool(parameter.isfinite().all()), f"{checkpoint}: {name}", "NaN or inf", "numbers")
    config = model.config
    expect(config.num_drums == NUM_DRUMS, checkpoint, f"{config.num_drums} drums", KIT)
    outputs = OUTPUTS.get(original.converter or "", (config.output,))
    expect(
        config.output in outputs,
        checkpoint,
        f"the output {config.output} with a {original.converter}",
        " or ".join(outputs),
    )
    expect(
        original.num_segments in (None, config.num_segments),
        checkpoint,
        f"numSegments {original.num_segments}",
        f"{config.num_segments} for a {config.decoder} decoder of {config.bars} bars",
    )
    return model


def write_card(folder: Path, checkpoint: str, original: Checkpoint, model: MusicVAEModel) -> None:
    card_data = ModelCardData(
        license="apache-2.0", library_name="transformers", tags=["music", "drums", "midi", "vae"]
    )
    # Where a folder lay on this machine concerns nobody else.
    source = checkpoint if is_address(checkpoint) else Path(checkpoint).resolve().name
    card = ModelCard.from_template(
        card_data,
        template_str=CARD,
        source=source,
        title=source.rstrip("/").rpartition("/")[2],
        converter=original.converter,
        checksums=original.checksums,
        model=model.config,
    )
    card.save(folder / "README.md")


def push(folder: str, repo: str) -> str:
    """Uploads a model folder as one commit and returns where it is; makes the repository."""
    name, api = open_repository(repo).name, HfApi()
    with explained_errors(name):
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Convert from Magenta")
    return f"{api.endpoint}/{name}"


# --- An .npz file of TensorFlow variables ---------------------------------------------------------


def read_npz(path: str, bars: int) -> Checkpoint:
    data = read_bytes(path, MAX_WEIGHTS_BYTES)
    try:
        check_npz(path, data)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            variables = dict(arrays)
    except MagentaCheckpointError:
        raise
    except Exception as error:  # NumPy names no error of its own: damage surfaces as almost any
        raise MagentaCheckpointError(f"{path}: damaged .npz file: {short(error)}") from error
    checksum = hashlib.sha256(data).hexdigest()
    return Checkpoint(variables, {path.rpartition("/")[2]: checksum}, bars)


def check_npz(path: str, data: bytes) -> None:
    """Adds up what an archive unpacks to, which may be a thousand times its size, before that."""
    size = 0
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as member:
                version = np.lib.format.read_magic(member)
                place = f"{path}: {short(entry.filename)}"
                expect(version == (1, 0), place, f"version {version} of .npy", (1, 0))
                shape, _, dtype = np.lib.format.read_array_header_1_0(member)
            expect(dtype.kind == "f", place, f"dtype {dtype}", "floating point numbers")
            size += math.prod(shape) * dtype.itemsize
    check_size(path, size)


def check_size(place: str, size: int) -> None:
    most = f"at most {MAX_WEIGHTS_BYTES}"
    expect(size <= MAX_WEIGHTS_BYTES, place, f"{size} bytes of weights", most)


# --- A checkpoint for magenta.js ------------------------------------------------------------------


def read_magenta_js(checkpoint: str) -> Checkpoint:
    folder = checkpoint.rstrip("/")
    spec = parse_spec(f"{folder}/{SPEC}", read_json(f"{folder}/{SPEC}"))
    groups = parse_manifest(f"{folder}/{MANIFEST}", read_json(f"{folder}/{MANIFEST}"))
    variables: dict[str, np.ndarray] = {}
    checksums: dict[str, str] = {}
    for paths, tensors in groups:
        shards = read_shards(folder, paths, sum(tensor.size for tensor in tensors))
        for path, shard in zip(paths, shards, strict=True):
            checksums[path] = hashlib.sha256(shard).hexdigest()
        stream = io.BytesIO(b"".join(shards))
        variables |= {tensor.name: tensor.decode(stream.read(tensor.size)) for tensor in tensors}
    return Checkpoint(variables, checksums, **spec)


def parse_spec(place: str, spec: Any) -> dict[str, Any]:
    """The fields of a `Checkpoint` that config.json has."""
    match spec:
        case {"type": "MusicVAE", "dataConverter": {"type": str(converter), "args": dict(args)}}:
            expect(
                converter in OUTPUTS,
                place,
                f"converter {converter!r}",
                f"one of {', '.join(OUTPUTS)}",
            )
        case _:
            raise mismatch(place, short(spec), "the type MusicVAE and a dataConverter with args")
    num_steps, steps_per_quarter = args.get("numSteps", 0), args.get("stepsPerQuarter")
    expect(
        type(num_steps) is int and num_steps > 0 and num_steps % STEPS_PER_BAR == 0,
        place,
        f"numSteps {num_steps!r}",
        f"whole bars of {STEPS_PER_BAR}",
    )
    expect(
        steps_per_quarter in (None, STEPS_PER_BAR // 4),
        place,
        f"stepsPerQuarter {steps_per_quarter!r}",
        STEPS_PER_BAR // 4,
    )
    if args.get("pitchClasses"):
        check_pitch_classes(place, args["pitchClasses"])
    switches = tuple(name for name, value in args.items() if value and name not in OTHER_ARGUMENTS)
    expect(
        switches in INPUT_TRANSFORMS,
        place,
        f"the arguments {', '.join(switches)} of {converter}",
        "humanize, tapify or neither",
    )
    return {
        "bars": num_steps // STEPS_PER_BAR,
        "converter": converter,
        "input_transform": INPUT_TRANSFORMS[switches],
        "num_segments": args.get("numSegments") or None,
    }


def check_pitch_classes(place: str, pitch_classes: Any) -> None:
    """Refuses another kit. Which more pitches play a drum is the business of the processor."""
    lists = isinstance(pitch_classes, list) and all(
        isinstance(pitches, list) and pitches for pitches in pitch_classes
    )
    expect(lists, place, f"pitchClasses {short(pitch_classes)}", "a list of pitches for each drum")
    expect(len(pitch_classes) == NUM_DRUMS, place, f"{len(pitch_classes)} drums", KIT)
    found = [pitches[0] for pitches in pitch_classes]
    expected = [pitches[0] for pitches in PITCH_MAPS["general_midi"]]
    expect(found == expected, place, f"drums of the pitches {found}", expected)


@dataclass(frozen=True)
class Tensor:
    """A tensor in a shard: its values are the stored numbers * scale + minimum."""

    name: str
    shape: tuple[int, ...]
    stored_as: np.dtype
    scale: float
    minimum: float

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * self.stored_as.itemsize

    def decode(self, data: bytes) -> np.ndarray:
        """float32, rounded once, as magenta.js does it."""
        stored = np.frombuffer(data, self.stored_as).reshape(self.shape)
        with np.errstate(all="ignore"):  # what is no number is refused later
            return (stored.astype(np.float64) * self.scale + self.minimum).astype(np.float32)


def parse_manifest(place: str, manifest: Any) -> list[tuple[list[str], list[Tensor]]]:
    """For each group of weights_manifest.json its shards, and the tensors that follow in them."""
    expect(isinstance(manifest, list), place, short(manifest), "a list of groups")
    groups, names = [], set()
    for group in manifest:
        match group:
            case {"paths": [*paths], "weights": [*weights]}:
                pass
            case _:
                raise mismatch(place, short(group), "a group of paths and weights")
        for path in paths:
            plain = isinstance(path, str) and len(path) <= MAX_NAME_LENGTH
            plain = plain and SHARD_PATH.fullmatch(path) is not None
            expect(plain, place, f"the path {short(path)}", "a plain one inside the checkpoint")
        tensors = [parse_tensor(place, spec) for spec in weights]
        for tensor in tensors:
            expect(tensor.name not in names, place, f"{tensor.name} twice", "it once")
            names.add(tensor.name)
        groups.append((paths, tensors))
    size = sum(4 * math.prod(tensor.shape) for _, tensors in groups for tensor in tensors)
    check_size(place, size)
    return groups


def parse_tensor(place: str, spec: Any) -> Tensor:
    match spec:
        case {"name": str(name), "shape": [*shape], "dtype": dtype} if (
            len(name) <= MAX_NAME_LENGTH
            and len(shape) <= MAX_DIMENSIONS
            and all(type(size) is int and size >= 0 for size in shape)
        ):
            expect(dtype == "float32", f"{place}: {name}", f"dtype {dtype!r}", "'float32'")
        case _:
            raise mismatch(place, short(spec), "a tensor's name, shape and dtype")
    match spec.get("quantization"):
        case None:
            stored_as, scale, minimum = "float32", 1, 0
        case {
            "dtype": stored_as,
            "scale": int() | float() as scale,
            "min": int() | float() as minimum,
        }:
            known = stored_as in ("uint8", "uint16")
            expect(known, f"{place}: {name}", f"dtype {stored_as!r}", "'uint8' or 'uint16'")
        case other:
            raise mismatch(f"{place}: {name}", short(other), "a quantization's dtype, scale, min")
    return Tensor(name, tuple(shape), np.dtype(stored_as).newbyteorder("<"), scale, minimum)


def read_shards(folder: str, paths: list[str], size: int) -> list[bytes]:
    """The shards of a group, which hold `size` bytes together."""
    shards, missing = [], size
    for path in paths:
        shards.append(read_bytes(f"{folder}/{path}", missing))
        missing -= len(shards[-1])
    expect(not missing, f"{folder}/{', '.join(paths)}", f"{size - missing} bytes", size)
    return shards


def read_json(place: str) -> Any:
    data = read_bytes(place, MAX_JSON_BYTES)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MagentaCheckpointError(f"{place}: damaged JSON: {error!s:.200}") from error


def read_bytes(place: str, max_bytes: int) -> bytes:
    try:
        return read_bounded(place, max_bytes)
    except ReadingError as error:
        raise MagentaCheckpointError(str(error)) from error


def short(value: Any) -> str:
    """The beginning of a value that may be long."""
    return f"{value!r:.80}"
