"""Exported models: the same drums by onnxruntime as by torch, from the same random numbers."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from modeling_musicvae.drum_attributes import ATTRIBUTES
from modeling_musicvae.drum_transforms import follow_taps
from modeling_musicvae.output_heads import FixedDrums
from processing import MusicVAEProcessor

pytest.importorskip("onnxruntime", reason="needs onnxruntime, for exported models")
pytest.importorskip("onnxscript", reason="needs onnxscript, to export models")

from onnxscript import ir

from musicvae.drummer import OnnxBackend, TorchBackend, load
from musicvae.onnx_export import add_graphs, export, write_weights
from musicvae.onnx_model import ExportedModelError, OnnxModel
from musicvae.onnx_weights import tensor_places
from musicvae.paths import RELEASED
from musicvae.random_numbers import uniforms

SIZES = {
    "bars": 2,
    "latent_size": 8,
    "encoder_hidden_size": 12,
    "conductor_hidden_size": 10,
    "decoder_hidden_size": 16,
    "lookback_bars": 1,
}
STEPS = 32
RELEASES = sorted(path.parent for path in RELEASED.glob("*/model.safetensors"))
slow = pytest.mark.slow
KINDS = {
    "groove": {},
    "flat": {"decoder": "flat", "lookback_bars": 0},
    "two layers of the encoder": {"encoder_num_layers": 2},
    "humanize": {
        "input_transform": "humanize",
        "hits_as_controls": True,
        "encoder_conditioning_size": 6,
    },
    "tap": {"input_transform": "tap", "input_as_controls": True, "encoder_conditioning_size": 6},
    "add": {"input_transform": "remove_drums", "encoder_conditioning_size": 6},
}


def random_model(kind: str) -> MusicVAEModel:
    torch.manual_seed(0)
    model = MusicVAEModel(MusicVAEConfig(**SIZES | KINDS[kind])).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    model.attribute_vectors[0] = torch.randn(8)
    model.latent_mean.copy_(torch.randn(8))
    model.kernel_centers.copy_(torch.randn_like(model.kernel_centers))
    return model


def random_drums(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hits = torch.rand(batch, 9, STEPS, generator=generator) < 0.2
    velocities = torch.randint(1, 128, hits.shape, generator=generator)
    timing = torch.rand(hits.shape, generator=generator) - 0.5
    return (velocities * hits).to(torch.uint8), timing * hits


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=() if kind == "groove" else slow) for kind in KINDS],
)
def pair(request, tmp_path_factory) -> tuple[MusicVAEModel, OnnxModel]:
    """A model, and itself exported."""
    model, folder = random_model(request.param), tmp_path_factory.mktemp("exported") / "model"
    export(model, MusicVAEProcessor(bars=2), "random", folder)
    return model, OnnxModel(folder)


def by_torch(
    model: MusicVAEModel, latents: np.ndarray, temperature: float, seed: int, fixed, conditioning
) -> tuple[np.ndarray, np.ndarray]:
    """`OnnxModel.decode` with torch: the windows of one song."""
    windows, past = [], None
    for index, each in enumerate(torch.from_numpy(np.ascontiguousarray(latents))):
        steps = model.config.num_steps
        draws = uniforms(seed, 2 + index, steps * model.head.num_draws)
        with torch.no_grad():
            frames = model.decoder.sample(
                model._contexts(each[None]),
                temperature,
                torch.from_numpy(draws).view(steps, 1, -1),
                None if conditioning is None else conditioning[index : index + 1],
                None if fixed is None else fixed._replace(frames=fixed.frames[index : index + 1]),
                past,
            )
        past = frames if past is None else torch.cat([past, frames], 1)
        windows.append(frames)
    piano_roll, timing = model.head.to_drums(torch.cat(windows))
    return piano_roll.numpy(), timing.numpy()


def test_the_encoder_gives_the_posterior_and_the_conditioning_of_torch(pair):
    model, exported = pair
    drums = random_drums()
    encoded = exported.encode(*(each.numpy() for each in drums))
    with torch.no_grad():
        posterior = model.encode(*drums)
    _, conditioning = model.conditioning(*drums)
    np.testing.assert_allclose(encoded["mean"], posterior.mean, atol=1e-5)
    np.testing.assert_allclose(encoded["std"], posterior.std, atol=1e-5)
    assert ("conditioning" in encoded) == (conditioning is not None)
    if conditioning is not None:
        np.testing.assert_allclose(encoded["conditioning"], conditioning.float(), atol=1e-5)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_the_drums_are_those_of_torch_but_for_rounding_ties(pair, temperature):
    model, exported = pair
    piano_roll, timing = random_drums()
    encoded = exported.encode(piano_roll.numpy(), timing.numpy())
    _, conditioning = model.conditioning(piano_roll, timing)
    fixed, levels = None, None
    if model.config.hits_as_controls:
        frames = model.head.to_frames(piano_roll, torch.zeros_like(timing))
        fixed, levels = FixedDrums.hits(frames, 9), np.ones(piano_roll.shape, np.uint8)
    expected = by_torch(model, encoded["mean"], temperature, 5, fixed, conditioning)
    drums = exported.decode(
        encoded["mean"],
        temperature,
        5,
        levels,
        piano_roll.numpy(),
        conditioning=encoded.get("conditioning"),
    )
    assert drums.piano_roll.any()
    assert (drums.piano_roll == expected[0]).mean() > 0.99
    assert (np.abs(drums.timing - expected[1]) < 1e-6).mean() > 0.99


def test_verbs_keep_what_they_promise(pair):
    model, exported = pair
    piano_roll, timing = (each.numpy() for each in random_drums())
    match exported.description["task"]:
        case "groove":
            drums = exported.transfer_groove(piano_roll, piano_roll[:1], timing[:1])
            assert np.array_equal(drums.piano_roll > 0, piano_roll > 0)
            assert exported.reconstruct(piano_roll, timing).piano_roll.shape == piano_roll.shape
            assert len(exported.interpolate(piano_roll[0], piano_roll[1], 4).piano_roll) == 4
            longer = exported.continue_drums(piano_roll[:1], timing[:1], bars=3)
            assert longer.piano_roll.shape == (1, 9, 5 * STEPS // 2)
            assert np.array_equal(longer.piano_roll[..., :STEPS], piano_roll[:1])
            assert longer.piano_roll[..., STEPS:].any()
        case "humanize":
            drums = exported.humanize(piano_roll)
            assert np.array_equal(drums.piano_roll > 0, piano_roll > 0)
        case "tap":
            drums = exported.tap_to_drums(piano_roll, timing)
            assert drums.piano_roll.any()
            made, taps = (
                [torch.from_numpy(each) for each in pair]
                for pair in ((drums.piano_roll, drums.timing), (piano_roll, timing))
            )
            for mine, followed in zip(made, follow_taps(model.config, made, *taps), strict=True):
                assert torch.equal(mine, followed)
        case _:  # add
            drums, others = exported.add_drums(piano_roll, timing), [0, 1, *range(3, 9)]
            assert np.array_equal(drums.piano_roll[:, others], piano_roll[:, others])
            assert np.array_equal(drums.timing[:, others], timing[:, others])


def test_a_seed_means_the_same_drums_with_torch_but_for_rounding_ties(pair):
    model, exported = pair
    torch_backend, onnx_backend = TorchBackend(model), OnnxBackend(exported)
    for verb, arguments, options in calls(exported.description["task"]):
        drums, others = (
            backend.run(verb, *arguments, seed=5, **options)
            for backend in (torch_backend, onnx_backend)
        )
        assert drums[0].any()
        for found, expected in zip(drums, others, strict=True):
            assert np.isclose(found, expected, atol=1e-6).mean() > 0.99, verb


def calls(task: str) -> list[tuple[str, tuple, dict]]:
    """Uses of all verbs of a model, on several windows or grooves: name, arguments, options."""
    piano_roll, timing = (each.numpy() for each in random_drums())
    song = [
        np.concatenate(list(each), 1)[None, :, : 5 * STEPS // 2] for each in (piano_roll, timing)
    ]
    return {
        "groove": [
            ("sample", (3,), {"bars": 5}),
            ("reconstruct", (piano_roll, timing), {}),
            ("transfer_groove", (piano_roll, piano_roll, timing), {}),
            ("interpolate", (piano_roll[0], piano_roll[1], 4), {}),
            ("continue_drums", (*song, 3), {}),
        ],
        "humanize": [("humanize", (piano_roll,), {})],
        "tap": [
            ("tap_to_drums", (piano_roll, timing), {}),
            ("tap_to_drums", (piano_roll, timing, 0.0), {}),
        ],
        "add": [("add_drums", (piano_roll, timing), {})],
    }[task]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(random_model("groove"), MusicVAEProcessor(bars=2), "random", folder)
    return folder


def test_a_seed_means_the_same_grooves_in_any_batch_and_length(folder):
    exported = OnnxModel(folder)
    three = exported.sample(3, seed=4, bars=6)
    assert three.piano_roll.shape == (3, 9, 96)
    third = exported.sample(1, seed=6, bars=2)
    assert np.array_equal(third.piano_roll[0], three.piano_roll[2, :, :STEPS])


def test_attributes_move_the_latents(folder):
    exported = OnnxModel(folder)
    name = next(iter(ATTRIBUTES))
    vector = exported.tensors[f"attribute_vectors.{name}"]
    moved = exported.add_attributes(np.zeros((1, 8), np.float32), {name: 2.0})
    np.testing.assert_allclose(moved[0], 2 * vector, rtol=1e-6)
    with pytest.raises(ValueError, match="attribute: found 'loudness', expected one of"):
        exported.sample(1, attributes={"loudness": 1.0})


@slow
def test_a_decoder_of_8_bit_weights_gives_nearly_the_same_drums(tmp_path):
    folder = tmp_path / "model"
    export(
        random_model("groove"), MusicVAEProcessor(bars=2), "random", tmp_path / "model", int8=True
    )
    whole, rounded = (OnnxModel(folder, int8=int8) for int8 in (False, True))
    latents = np.zeros((8, 8), np.float32)
    drums, others = (each.decode(latents).piano_roll for each in (whole, rounded))
    assert 0.7 < ((drums > 0) == (others > 0)).mean() <= 1


@slow
@pytest.mark.parametrize("release", RELEASES, ids=lambda folder: folder.name)
def test_a_released_folder_has_the_graphs_that_are_exported_today(release, tmp_path):
    model = MusicVAEModel.from_pretrained(release)
    processor = MusicVAEProcessor.from_pretrained(release)
    shutil.copy(release / "model.safetensors", tmp_path)
    add_graphs(model, processor, release.name, tmp_path)
    released, exported = (
        json.loads((folder / "musicvae.json").read_text()) for folder in (release, tmp_path)
    )
    assert released["files"].keys() == exported["files"].keys()
    assert released | {"files": {}} == exported | {"files": {}}
    for name in ("encoder.onnx", "decoder.onnx"):
        assert operators(release / name) == operators(tmp_path / name)


def operators(graph) -> list[str]:
    return [node.op_type for node in ir.load(graph).graph.all_nodes()]


@slow
@pytest.mark.parametrize("release", RELEASES, ids=lambda folder: folder.name)
def test_a_released_folder_makes_the_drums_of_torch(release):
    model, exported = MusicVAEModel.from_pretrained(release), OnnxModel(release)
    piano_roll, timing = (torch.cat([each] * 2, 2) for each in random_drums(1))
    encoded = exported.encode(piano_roll.numpy(), timing.numpy())
    _, conditioning = model.conditioning(piano_roll, timing)
    if conditioning is not None:
        np.testing.assert_allclose(encoded["conditioning"], conditioning, atol=1e-4)
    fixed, levels = None, None
    if model.config.hits_as_controls:
        fixed = FixedDrums.hits(model.head.to_frames(piano_roll, torch.zeros_like(timing)), 9)
        levels = np.ones(piano_roll.shape, np.uint8)
    given = levels, piano_roll.numpy(), None, encoded.get("conditioning")
    expected = by_torch(model, encoded["mean"], 0.8, 5, fixed, conditioning)
    drums = exported.decode(encoded["mean"], 0.8, 5, *given)
    assert np.array_equal(drums.piano_roll, expected[0])
    np.testing.assert_allclose(drums.timing, expected[1], atol=1e-6)


def test_a_graph_holds_no_weights(folder):
    weights = (folder / "model.safetensors").stat().st_size
    graphs = sum((folder / name).stat().st_size for name in ("encoder.onnx", "decoder.onnx"))
    assert graphs < 100_000
    places = tensor_places(folder / "model.safetensors").values()
    assert max(place.offset + place.num_bytes for place in places) == weights
    for name in ("encoder.onnx", "decoder.onnx"):
        values = ir.load(folder / name).graph.initializers.values()
        embedded = [
            v.const_value for v in values if not isinstance(v.const_value, ir.ExternalTensor)
        ]
        assert max(tensor.size for tensor in embedded) <= 1024


@pytest.mark.parametrize(("half", "dtype"), [(True, "F16"), (False, "F32")])
def test_weights_are_float16_where_that_changes_none(half, dtype, tmp_path):
    model = random_model("groove")
    write_weights(model.half().float() if half else model, tmp_path / "model.safetensors")
    places = tensor_places(tmp_path / "model.safetensors")
    assert places.keys() == model.state_dict().keys()
    assert {place.dtype for place in places.values()} == {dtype}


def test_an_exported_model_needs_no_torch(folder):
    code = (
        "import sys; from musicvae.onnx_model import OnnxModel\n"
        f"OnnxModel({str(folder)!r}).sample(1)\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "decoder.onnx").unlink(), "decoder.onnx: missing"),
        (lambda folder: flip_a_byte(folder / "model.safetensors"), "model.safetensors: damaged"),
        (lambda folder: (folder / "musicvae.json").write_text("[]"), "no whole description"),
        (lambda folder: (folder / "musicvae.json").unlink(), "found no musicvae.json"),
    ],
    ids=["missing", "damaged", "another description", "no description"],
)
def test_a_folder_that_is_not_whole_is_refused(folder, tmp_path, damage, message):
    copy = tmp_path / "model"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    damage(copy)
    with pytest.raises(ExportedModelError, match=message):
        OnnxModel(copy)


def flip_a_byte(path) -> None:
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)


@slow
def test_verbs_on_files_run_on_an_exported_model(folder, tmp_path):
    drummer = load(folder, backend="onnx")
    groove = drummer.sample(1, bars=2, bpm=90)[0]
    groove.write(tmp_path / "groove.mid")
    longer = drummer.continue_drums(tmp_path / "groove.mid", bars=2)
    assert longer.num_bars == 4
    assert np.array_equal(longer.piano_roll[:, :STEPS] > 0, groove.piano_roll > 0)


def test_another_backend_is_refused(folder):
    with pytest.raises(ValueError, match="backend: found 'jax', expected 'torch' or 'onnx'"):
        load(folder, backend="jax")
