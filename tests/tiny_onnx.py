"""A folder as `musicvae export` writes it, with graphs that a test makes in no time."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from modeling_musicvae.drum_attributes import ATTRIBUTES
from musicvae.onnx_export import latent_tensors
from musicvae.onnx_model import FORMAT, TASKS
from musicvae.onnx_weights import tensor_places
from musicvae.tasks import SAMPLE_TEMPERATURE
from processing.drum_kit import DRUM_NAMES, PITCH_MAPS

DRUMS, STEPS, LATENT_SIZE = 9, 64, 8
INPUT_TRANSFORMS = {task: transform for transform, task in TASKS.items()}
NUM_DRAWS = 3 * DRUMS  # hits, velocities, timings


def write_tiny_export(
    folder: Path, task: str = "groove", styles: tuple[str, ...] = (), **settings
) -> Path:
    """Writes a model that plays something like a rock beat; `settings` are of its config."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(task))
    weights = {
        "latent_mean": rng.normal(size=LATENT_SIZE),
        "latent_scale": np.tril(rng.normal(size=(LATENT_SIZE, LATENT_SIZE))),
        "attribute_vectors": rng.normal(size=(len(ATTRIBUTES), LATENT_SIZE)),
    }
    if kernels := settings.get("latent_kernels"):
        weights["kernel_centers"] = rng.normal(size=(kernels, LATENT_SIZE))
    if styles:
        weights["style_centers"] = rng.normal(size=(len(styles), 3, LATENT_SIZE))
    weights = {name: tensor.astype(np.float16) for name, tensor in weights.items()}
    save_file(weights, folder / "model.safetensors")
    places = tensor_places(folder / "model.safetensors")
    onnx.save(_encoder(rng), folder / "encoder.onnx")
    onnx.save(_decoder(rng), folder / "decoder.onnx")
    config = {"bars": 4, "steps_per_bar": 16, "num_drums": DRUMS, "latent_size": LATENT_SIZE}
    config |= {"lookback_bars": 0, "removed_drums": [2], "output": "categorical"}
    config |= {"velocity_bins": 8, "timing_bins": 9, "input_transform": INPUT_TRANSFORMS[task]}
    config |= settings
    description = {
        "format": FORMAT,
        "name": f"tiny-{task}",
        "task": task,
        "config": config,
        "num_draws": NUM_DRAWS,
        "temperature": SAMPLE_TEMPERATURE,
        "drums": DRUM_NAMES,
        "pitch_map": "general_midi",
        "pitch_maps": PITCH_MAPS,
        "attributes": ["density", "swing"],
        "styles": list(styles),
        "tensors": latent_tensors(places, {"density": 0, "swing": 4}),
        "files": {
            path.name: {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "bytes": path.stat().st_size,
            }
            for path in sorted(folder.iterdir())
        },
    }
    (folder / "musicvae.json").write_text(json.dumps(description))
    return folder


def _encoder(rng: np.random.Generator) -> onnx.ModelProto:
    weight = rng.normal(size=(DRUMS * STEPS, LATENT_SIZE)).astype(np.float32) / 20
    nodes = [
        helper.make_node("Cast", ["piano_roll"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "loudness"], ["scaled"]),
        helper.make_node("Add", ["scaled", "timing"], ["features"]),
        helper.make_node("Flatten", ["features"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weight"], ["mean"]),
        helper.make_node("Sigmoid", ["mean"], ["std"]),
    ]
    shape, latent = ["batch", DRUMS, STEPS], ["batch", LATENT_SIZE]
    return _model(
        nodes,
        {"piano_roll": (TensorProto.UINT8, shape), "timing": (TensorProto.FLOAT, shape)},
        {"mean": (TensorProto.FLOAT, latent), "std": (TensorProto.FLOAT, latent)},
        {"weight": weight, "loudness": np.float32(1 / 127)},
    )


def _decoder(rng: np.random.Generator) -> onnx.ModelProto:
    beat = np.full((DRUMS, STEPS), -3.0)
    beat[0, ::8], beat[1, 4::8], beat[2, ::2] = 3, 4, 3
    weight = rng.normal(size=(LATENT_SIZE, DRUMS * STEPS)) / 4
    constants = {
        "weight": weight.astype(np.float32),
        "beat": beat.astype(np.float32),
        "shape": np.array([-1, DRUMS, STEPS]),
        "coldest": np.float32(1e-3),
        "softest": np.float32(40),
        "range": np.float32(80),
        "middle": np.float32(0.5),
        "width": np.float32(0.4),
    }
    draws = ["hit_draws", "velocity_draws", "timing_draws"]
    nodes = [
        helper.make_node("Transpose", ["uniform"], ["draws"], perm=[1, 2, 0]),
        helper.make_node("Split", ["draws"], draws, axis=1, num_outputs=3),
        helper.make_node("MatMul", ["latents", "weight"], ["rows"]),
        helper.make_node("Reshape", ["rows", "shape"], ["moved"]),
        helper.make_node("Add", ["moved", "beat"], ["logits"]),
        helper.make_node("Max", ["temperature", "coldest"], ["heat"]),
        helper.make_node("Div", ["logits", "heat"], ["tempered"]),
        helper.make_node("Sigmoid", ["tempered"], ["probabilities"]),
        helper.make_node("Less", ["hit_draws", "probabilities"], ["drawn"]),
        helper.make_node("Cast", ["drawn"], ["drawn_hits"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["fixed"], ["given"], to=TensorProto.BOOL),
        helper.make_node("Cast", ["fixed_piano_roll"], ["given_drums"], to=TensorProto.FLOAT),
        helper.make_node("Sign", ["given_drums"], ["given_hits"]),
        helper.make_node("Where", ["given", "given_hits", "drawn_hits"], ["hits"]),
        helper.make_node("Mul", ["velocity_draws", "range"], ["spread"]),
        helper.make_node("Add", ["spread", "softest"], ["loud"]),
        helper.make_node("Mul", ["loud", "hits"], ["velocities"]),
        helper.make_node("Cast", ["velocities"], ["piano_roll"], to=TensorProto.UINT8),
        helper.make_node("Sub", ["timing_draws", "middle"], ["centred"]),
        helper.make_node("Mul", ["centred", "width"], ["late"]),
        helper.make_node("Mul", ["late", "hits"], ["timing"]),
    ]
    shape = ["batch", DRUMS, STEPS]
    inputs = {
        "latents": (TensorProto.FLOAT, ["batch", LATENT_SIZE]),
        "uniform": (TensorProto.FLOAT, [STEPS, "batch", NUM_DRAWS]),
        "temperature": (TensorProto.FLOAT, []),
        "fixed": (TensorProto.UINT8, shape),
        "fixed_piano_roll": (TensorProto.UINT8, shape),
    }
    outputs = {"piano_roll": (TensorProto.UINT8, shape), "timing": (TensorProto.FLOAT, shape)}
    return _model(nodes, inputs, outputs, constants)


def _model(nodes, inputs, outputs, constants) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, *each) for name, each in inputs.items()],
        [helper.make_tensor_value_info(name, *each) for name, each in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
