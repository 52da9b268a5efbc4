"""An exported model, run by onnxruntime and NumPy alone: docs/onnx.md describes its folder."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .random_numbers import (
    DRAWS_STREAM,
    KERNEL_STREAM,
    NOISE_STREAM,
    PATH_STREAM,
    normals,
    uniforms,
)

FORMAT = 3
DESCRIPTION, WEIGHTS = "musicvae.json", "model.safetensors"
ENCODER, DECODER, INT8_DECODER = "encoder.onnx", "decoder.onnx", "decoder.int8.onnx"
DTYPES = {"F16": "<f2", "F32": "<f4"}  # as safetensors files call them
TASKS = {"none": "groove", "humanize": "humanize", "tap": "tap", "remove_drums": "add"}
# The path from one draw of latents to another has at least as many windows, or neighbours would
# have little in common.
MIN_PATH_WINDOWS = 5
FREE, HIT_FIXED, ALL_FIXED = 0, 1, 2
# Of greedy drums for taps, as in modeling_musicvae/consensus.py.
CONSENSUS_DRAWS, CONSENSUS_LEAST, CONSENSUS_TEMPERATURE = 32, 13, 0.7


class ExportedModelError(ValueError):
    """A folder that is not a whole exported model."""


def task_of(input_transform: str) -> str:
    """The task, as docs/onnx.md names it, of a model with this input transform."""
    return TASKS["tap" if input_transform == "tap_fixed_velocity" else input_transform]


@dataclass
class OnnxDrums:
    """Drums that an exported model made.

    Attributes:
        piano_roll: uint8 (batch, drums, steps), MIDI velocities.
        timing: float32 (batch, drums, steps), microtiming in steps.
    """

    piano_roll: np.ndarray
    timing: np.ndarray


class OnnxModel:
    """The verbs of `MusicVAEModel` without torch, on NumPy arrays.

    The groove at place n of a batch has the seed `seed + n`; its windows follow one another, and
    the look-back of each sees those before it.
    """

    def __init__(self, folder: str | Path, int8: bool = False):
        """
        Args:
            folder: of an exported model.
            int8: whether to run the decoder of 8-bit weights, if the folder has it.

        Raises:
            ExportedModelError: a file is missing or damaged, or of another format.
        """
        folder = Path(folder)
        decoder = INT8_DECODER if int8 else DECODER
        self.description = read_description(folder, (ENCODER, decoder, WEIGHTS))
        self.graphs = folder / ENCODER, folder / decoder
        self.config = self.description["config"]
        self.num_steps = self.config["bars"] * self.config["steps_per_bar"]
        self.tensors = _read_tensors(folder / WEIGHTS, self.description)

    # A session takes a moment to start, and not every verb needs both.
    @cached_property
    def encoder(self) -> Any:
        return _session(self.graphs[0])

    @cached_property
    def decoder(self) -> Any:
        return _session(self.graphs[1])

    def sample(
        self,
        num_samples: int,
        temperature: float = 1.0,
        seed: int = 0,
        bars: int | None = None,
        attributes: Mapping[str, float] | None = None,
        style: str | None = None,
    ) -> OnnxDrums:
        """New drums; arguments as for `MusicVAEModel.sample`."""
        bars = self.config["bars"] if bars is None else bars
        for name, number in (("num_samples", num_samples), ("bars", bars)):
            if number < 1:
                raise ValueError(f"{name}: found {number}, expected at least 1")
        num_windows = -(-bars // self.config["bars"])
        grooves = []
        for own_seed in range(seed, seed + num_samples):
            start, end = (
                normals(own_seed, stream, self.config["latent_size"])
                for stream in (NOISE_STREAM, PATH_STREAM)
            )
            noise = _great_arc(start, end, max(num_windows, MIN_PATH_WINDOWS))[:num_windows]
            choice = uniforms(own_seed, KERNEL_STREAM, 1)
            latents = self.latents_from_noise(noise, choice, style)
            latents = self.add_attributes(latents, attributes or {})
            grooves.append(self.decode(latents, temperature, own_seed))
        steps = bars * self.config["steps_per_bar"]
        rolls, timings = (
            np.stack([np.concatenate(getattr(groove, name), 1)[:, :steps] for groove in grooves])
            for name in ("piano_roll", "timing")
        )
        return OnnxDrums(rolls, timings)

    def reconstruct(
        self,
        piano_roll: np.ndarray,
        timing: np.ndarray | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        attributes: Mapping[str, float] | None = None,
    ) -> OnnxDrums:
        """Drums decoded from the posterior mean of the windows of one song, in order."""
        self._check_task("reconstruct", "groove")
        latents = self.encode(piano_roll, timing)["mean"]
        return self.decode(self.add_attributes(latents, attributes or {}), temperature, seed)

    def continue_drums(
        self,
        piano_roll: np.ndarray,
        timing: np.ndarray,
        bars: int | None = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> OnnxDrums:
        """Given bars (1, drums, steps), exactly, and new ones that follow them; see
        `MusicVAEModel.continue_drums`."""
        self._check_task("continue_drums", "groove")
        bars = self.config["bars"] if bars is None else bars
        if bars < 1:
            raise ValueError(f"bars: found {bars}, expected at least 1")
        num_given, num_steps = piano_roll.shape[2], self.num_steps
        num_windows = -(-(num_given + bars * self.config["steps_per_bar"]) // num_steps)
        repeats = -(-num_steps // num_given)
        ends = (np.tile(each, repeats)[..., -num_steps:] for each in (piano_roll, timing))
        latents = np.repeat(self.encode(*ends)["mean"], num_windows, 0)
        padding = ((0, 0), (0, 0), (0, num_windows * num_steps - num_given))
        fixed = np.pad(np.full(piano_roll.shape, ALL_FIXED, np.uint8), padding)
        given = [fixed, *(np.pad(each, padding) for each in (piano_roll, timing))]
        in_windows = (
            each[0].reshape(len(each[0]), num_windows, num_steps).transpose(1, 0, 2)
            for each in given
        )
        drums = self.decode(latents, temperature, seed, *in_windows)
        made = (np.concatenate(each, 1)[None] for each in (drums.piano_roll, drums.timing))
        end = num_given + bars * self.config["steps_per_bar"]
        return OnnxDrums(
            *(
                np.concatenate([own, new[..., num_given:end]], 2)
                for own, new in zip((piano_roll, timing), made, strict=True)
            )
        )

    def humanize(
        self, piano_roll: np.ndarray, temperature: float = 1.0, seed: int = 0
    ) -> OnnxDrums:
        """The hits of one song's windows, exactly, with the velocity and timing of a drummer."""
        self._check_task("humanize", "humanize")
        fixed = np.full(piano_roll.shape, HIT_FIXED, np.uint8)
        return self._decode_encoded(piano_roll, None, temperature, seed, fixed)

    def tap_to_drums(
        self,
        piano_roll: np.ndarray,
        timing: np.ndarray | None = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> OnnxDrums:
        """Drums for the tapped rhythm of one song's windows, which keep the feel of the taps."""
        self._check_task("tap_to_drums", "tap")
        timing = np.zeros(piano_roll.shape, np.float32) if timing is None else timing
        encoded = self.encode(piano_roll, timing)
        latents, conditioning = encoded["mean"], encoded.get("conditioning")
        fixed = score = None
        if temperature == 0:
            score = self._consensus(latents, conditioning)
            fixed = np.full(score.shape, HIT_FIXED, np.uint8)
        drums = self.decode(latents, temperature, seed, fixed, score, conditioning=conditioning)
        return _follow_taps(self.config, drums, piano_roll, timing)

    def add_drums(
        self,
        piano_roll: np.ndarray,
        timing: np.ndarray | None = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> OnnxDrums:
        """The drums that this model adds, along with all others of one song's windows."""
        self._check_task("add_drums", "add")
        timing = np.zeros(piano_roll.shape, np.float32) if timing is None else timing
        fixed = np.full(piano_roll.shape, ALL_FIXED, np.uint8)
        fixed[:, self.config["removed_drums"]] = FREE
        drums = self._decode_encoded(piano_roll, timing, temperature, seed, fixed)
        given = fixed == ALL_FIXED
        drums.piano_roll[given], drums.timing[given] = piano_roll[given], timing[given]
        return drums

    def transfer_groove(
        self,
        score: np.ndarray,
        piano_roll: np.ndarray,
        timing: np.ndarray | None = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> OnnxDrums:
        """The hits of `score`, exactly, with the feel of other drums, as many, or one for all."""
        self._check_task("transfer_groove", "groove")
        mean = self.encode(piano_roll, timing)["mean"]
        latents = np.broadcast_to(mean, (len(score), mean.shape[1]))
        fixed = np.full(score.shape, HIT_FIXED, np.uint8)
        return self.decode(latents, temperature, seed, fixed, score)

    def interpolate(
        self,
        start: np.ndarray,
        end: np.ndarray,
        num_points: int,
        temperature: float = 1.0,
        seed: int = 0,
        start_timing: np.ndarray | None = None,
        end_timing: np.ndarray | None = None,
    ) -> OnnxDrums:
        """Drums along the great arc between the posterior means of two windows, (drums, steps)."""
        self._check_task("interpolate", "groove")
        ends = [
            self.encode(roll[None], None if timing is None else timing[None])["mean"][0]
            for roll, timing in ((start, start_timing), (end, end_timing))
        ]
        first, last = (each.astype(np.float64) for each in ends)
        latents = _great_arc(first, last, num_points)
        return self.decode(latents.astype(np.float32), temperature, seed)

    def encode(
        self, piano_roll: np.ndarray, timing: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The posterior of drums (batch, drums, steps): mean and std, float32 (batch, latent_size);
        and conditioning (batch, steps, size) where the decoder is conditioned on each step."""
        timing = np.zeros(piano_roll.shape, np.float32) if timing is None else timing
        names = [output.name for output in self.encoder.get_outputs()]
        outputs = self.encoder.run(None, {"piano_roll": piano_roll, "timing": timing})
        return dict(zip(names, outputs, strict=True))

    def decode(
        self,
        latents: np.ndarray,
        temperature: float = 1.0,
        seed: int = 0,
        fixed: np.ndarray | None = None,
        piano_roll: np.ndarray | None = None,
        timing: np.ndarray | None = None,
        conditioning: np.ndarray | None = None,
    ) -> OnnxDrums:
        """Drums of the windows of one song, in order.

        Args:
            latents: float32 (windows, latent_size).
            temperature: of the draws; 0 takes the most likely hits at each step, with the median of
                their velocity and timing.
            seed: of the draws, 0 to 2 ** 32 - 1.
            fixed: uint8 (windows, drums, steps): `FREE`, `HIT_FIXED` or `ALL_FIXED`.
            piano_roll, timing: what is fixed.
            conditioning: see `encode`.
        """
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature: found {temperature}, expected 0 or more")
        shape = (len(latents), self.config["num_drums"], self.num_steps)
        fixed = np.zeros(shape, np.uint8) if fixed is None else fixed
        given_roll = (
            np.zeros(shape, np.uint8) if piano_roll is None else piano_roll * (fixed > FREE)
        )
        given_timing = np.zeros(shape, np.float32)
        if timing is not None:
            given_timing = timing * (fixed == ALL_FIXED)
        history = self._silence(1)
        past = history.timing.shape[2]
        windows = []
        for index in range(len(latents)):
            this = slice(index, index + 1)
            windows.append(
                self._decode_window(
                    latents=np.ascontiguousarray(latents[this], np.float32),
                    uniform=self._draws(seed, index),
                    temperature=np.array(temperature, np.float32),
                    fixed=fixed[this],
                    fixed_piano_roll=given_roll[this].astype(np.uint8),
                    fixed_timing=given_timing[this].astype(np.float32),
                    history_piano_roll=history.piano_roll,
                    history_timing=history.timing,
                    conditioning=None if conditioning is None else conditioning[this],
                )
            )
            history = _last_steps(history, windows[-1], past)
        return OnnxDrums(
            np.concatenate([window.piano_roll for window in windows]),
            np.concatenate([window.timing for window in windows]),
        )

    def _decode_window(self, **inputs: np.ndarray | None) -> OnnxDrums:
        """Runs the decoder, which has those of the inputs that it needs."""
        names = [each.name for each in self.decoder.get_inputs()]
        return OnnxDrums(*self.decoder.run(None, {name: inputs[name] for name in names}))

    def _silence(self, batch_size: int) -> OnnxDrums:
        """The drums before those that nothing precedes."""
        past = self.config["lookback_bars"] * self.config["steps_per_bar"]
        shape = (batch_size, self.config["num_drums"], past)
        return OnnxDrums(np.zeros(shape, np.uint8), np.zeros(shape, np.float32))

    def _consensus(self, latents: np.ndarray, conditioning: np.ndarray | None) -> np.ndarray:
        """The hits that draws of each window agree on, uint8 (windows, drums, steps)."""
        free = np.full((CONSENSUS_DRAWS, self.config["num_drums"], self.num_steps), FREE, np.uint8)
        history = self._silence(CONSENSUS_DRAWS)
        numbers = np.concatenate([self._draws(0, index) for index in range(CONSENSUS_DRAWS)], 1)
        hits = []
        for window in range(len(latents)):
            this = np.full(CONSENSUS_DRAWS, window)
            draws = self._decode_window(
                latents=latents[this],
                uniform=numbers,
                temperature=np.array(CONSENSUS_TEMPERATURE, np.float32),
                fixed=free,
                fixed_piano_roll=free,
                fixed_timing=free.astype(np.float32),
                history_piano_roll=history.piano_roll,
                history_timing=history.timing,
                conditioning=None if conditioning is None else conditioning[this],
            )
            hits.append((draws.piano_roll > 0).sum(0) >= CONSENSUS_LEAST)
        return np.stack(hits).astype(np.uint8)

    def _draws(self, seed: int, window: int) -> np.ndarray:
        num_draws = self.description["num_draws"]
        numbers = uniforms(seed, DRAWS_STREAM + window, self.num_steps * num_draws)
        return numbers.reshape(self.num_steps, 1, num_draws)

    def latents_from_noise(
        self, noise: np.ndarray, choices: np.ndarray, style: str | None = None
    ) -> np.ndarray:
        """Latents float32 (batch, latent_size) of standard normal noise, of all drums or of a
        style; see `MusicVAEModel.latents_from_noise`. One choice serves a whole batch too."""
        centers = self.tensors.get("kernel_centers")
        if style is not None:
            centers = self.tensors["style_centers"][self._index("style", style, "styles")]
        mean, scale = self.tensors["latent_mean"], self.tensors["latent_scale"]
        if centers is not None:
            numbers = (choices * np.float32(len(centers))).astype(int)
            mean = mean + centers.astype(np.float64)[numbers]
        return (mean + noise @ scale.astype(np.float64).T).astype(np.float32)

    def add_attributes(self, latents: np.ndarray, attributes: Mapping[str, float]) -> np.ndarray:
        """Latents of drums that have more of attributes, by name and strength in standard
        deviations."""
        for name, strength in attributes.items():
            self._index("attribute", name, "attributes")
            vector = self.tensors[f"attribute_vectors.{name}"]
            latents = (latents + strength * vector.astype(np.float64)).astype(np.float32)
        return latents

    def _decode_encoded(
        self,
        piano_roll: np.ndarray,
        timing: np.ndarray | None,
        temperature: float,
        seed: int,
        fixed: np.ndarray,
    ) -> OnnxDrums:
        encoded = self.encode(piano_roll, timing)
        conditioning = encoded.get("conditioning")
        return self.decode(
            encoded["mean"], temperature, seed, fixed, piano_roll, timing, conditioning
        )

    def _index(self, kind: str, name: str, names: str) -> int:
        known = self.description[names]
        if name not in known:
            raise ValueError(f"{kind}: found {name!r}, expected one of {known}")
        return known.index(name)

    def _check_task(self, verb: str, task: str) -> None:
        found = self.description["task"]
        if found != task:
            raise ValueError(f"{verb}: found a model for {found}, expected one for {task}")


def _follow_taps(
    config: dict[str, Any], drums: OnnxDrums, piano_roll: np.ndarray, timing: np.ndarray
) -> OnnxDrums:
    """As `follow_taps` in modeling_musicvae."""
    hits_alone = {"groove": False, "nade": True}
    no_bins = config["velocity_bins"] + config["timing_bins"] == 0
    if hits_alone.get(config["output"], no_bins):
        return drums
    velocity, drum = piano_roll.max(1, keepdims=True), piano_roll.argmax(1)[:, None]
    made = drums.piano_roll
    tapped = (velocity > 0) & (made > 0)
    made_timing = np.where(tapped, np.take_along_axis(timing, drum, 1), drums.timing)
    if config["input_transform"] == "tap":
        loudest = made == made.max(1, keepdims=True)
        made = np.where(tapped, np.where(loudest, velocity, np.minimum(made, velocity)), made)
    return OnnxDrums(made, made_timing)


def _great_arc(start: np.ndarray, end: np.ndarray, num_points: int) -> np.ndarray:
    """Points along the great arc between two vectors, whose lengths change evenly: float64
    (num_points, size). As `spherical_interpolation` in modeling_musicvae."""
    share = np.linspace(0, 1, num_points)[:, None]
    lengths = [np.linalg.norm(each) for each in (start, end)]
    directions = [
        each / max(length, 1e-12) for each, length in zip((start, end), lengths, strict=True)
    ]
    angle = np.arccos(np.clip(directions[0] @ directions[1], -1, 1))
    if np.sin(angle) < 1e-6:
        return (1 - share) * start + share * end
    weights = np.sin((1 - share) * angle), np.sin(share * angle)
    direction = (weights[0] * directions[0] + weights[1] * directions[1]) / np.sin(angle)
    return direction * ((1 - share) * lengths[0] + share * lengths[1])


def _last_steps(before: OnnxDrums, drums: OnnxDrums, num_steps: int) -> OnnxDrums:
    """The last steps of drums and those before them."""
    parts = (before.piano_roll, drums.piano_roll), (before.timing, drums.timing)
    joined = [np.concatenate(pair, 2) for pair in parts]
    return OnnxDrums(*(each[..., each.shape[2] - num_steps :] for each in joined))


def import_onnxruntime() -> Any:
    """onnxruntime, without its reports to its makers and the identifier that it keeps for them."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def _session(path: Path) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a step is too small to share
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def read_description(folder: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """The content of musicvae.json.

    Args:
        folder: of an exported model.
        needed: names of files in it that must be whole.

    Raises:
        ExportedModelError: there is no such folder, or a file is missing or damaged.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ExportedModelError(
            f"{folder}: found no {DESCRIPTION}, expected the folder of an exported model, as "
            "musicvae export writes it"
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        found, files = description["format"], dict(description["files"])
    except (ValueError, TypeError, KeyError) as error:
        raise ExportedModelError(f"{path}: found no whole description: {error!r:.200}") from error
    if found != FORMAT:
        raise ExportedModelError(f"{path}: format: found {found}, expected {FORMAT}")
    for name in needed:
        file, facts = folder / name, files.get(name, {})
        if not file.is_file() or file.stat().st_size != facts.get("bytes"):
            raise ExportedModelError(f"{file}: missing or not of its size, export the model again")
        digest = hashlib.sha256()
        with file.open("rb") as content:
            while piece := content.read(1 << 20):
                digest.update(piece)
        if digest.hexdigest() != facts.get("sha256"):
            raise ExportedModelError(f"{file}: damaged, its sha256 is not that of {DESCRIPTION}")
    return description


def _read_tensors(weights: Path, description: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        name: np.fromfile(
            weights, DTYPES[place["dtype"]], math.prod(place["shape"]), offset=place["offset"]
        )
        .reshape(place["shape"])
        .astype(np.float32)
        for name, place in description["tensors"].items()
    }
