"""Export of a model to ONNX: docs/onnx.md describes the folder."""

import hashlib
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from onnxscript import ir
from safetensors.torch import save_file
from torch import nn
from torch._higher_order_ops.scan import scan

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.decoding_step import StepState
from modeling_musicvae.drum_attributes import ATTRIBUTES
from modeling_musicvae.drum_transforms import apply_input_transform
from modeling_musicvae.modules_musicvae import MusicVAEConductor
from modeling_musicvae.output_heads import FixedDrums
from processing import MusicVAEProcessor
from processing.drum_kit import DRUM_NAMES, PITCH_MAPS

from .atomic import whole_folder
from .onnx_model import (
    DECODER,
    DESCRIPTION,
    ENCODER,
    FORMAT,
    INT8_DECODER,
    WEIGHTS,
    import_onnxruntime,
    task_of,
)
from .onnx_weights import Place, refer_to_weights, tensor_places
from .tasks import SAMPLE_TEMPERATURE

OPSET = 20
MAX_BATCH = 4096


def export(
    model: MusicVAEModel,
    processor: MusicVAEProcessor,
    name: str,
    folder: Path,
    int8: bool = False,
) -> None:
    """Writes the folder of an exported model, whole or not at all.

    Args:
        model: with float32 weights.
        processor: its own.
        name: of the model, in the description.
        folder: absent, or an exported model, which is replaced.
        int8: whether to write decoder.int8.onnx too, whose weights are 8-bit integers.
    """
    replace = (folder / DESCRIPTION).is_file()
    with whole_folder(folder, replace) as temporary:
        write_weights(model, temporary / WEIGHTS)
        add_graphs(model, processor, name, temporary, int8)


def add_graphs(
    model: MusicVAEModel,
    processor: MusicVAEProcessor,
    name: str,
    folder: Path,
    int8: bool = False,
) -> None:
    """Makes the folder of a saved model that of an exported one too: adds the graphs, which refer
    to the saved weights, and the description. Arguments as for `export`."""
    model = model.eval()
    with torch.no_grad():
        _export_graph(ExportedEncoder(model), _encoder_inputs(model), folder / ENCODER)
        _export_graph(ExportedDecoder(model), _decoder_inputs(model), folder / DECODER)
    names = [ENCODER, DECODER, WEIGHTS]
    if int8:
        _quantize(folder / DECODER, folder / INT8_DECODER)
        names.append(INT8_DECODER)
    description = _describe(model, processor, name, [folder / name for name in names])
    text = json.dumps(description, indent=1) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")


class ExportedEncoder(nn.Module):
    """Drums to the posterior, and to the conditioning if the model has any."""

    outputs = ("mean", "std", "conditioning")

    def __init__(self, model: MusicVAEModel):
        super().__init__()
        self.model = model

    def forward(self, piano_roll: torch.Tensor, timing: torch.Tensor) -> tuple[torch.Tensor, ...]:
        model, encoder = self.model, self.model.encoder
        inputs = model.head.encoder_inputs(*apply_input_transform(model.config, piano_roll, timing))
        mean, std, conditioning = encoder.posterior(*_onnx_lstm(encoder.lstm, inputs))
        conditioning = model._conditioning(piano_roll, timing, conditioning)
        return (mean, std) if conditioning is None else (mean, std, conditioning.float())


class ExportedDecoder(nn.Module):
    """Latents to drums: a scan over the steps, each of them `DecodingStep`."""

    outputs = ("piano_roll", "timing")

    def __init__(self, model: MusicVAEModel):
        super().__init__()
        self.model = model

    def forward(
        self,
        latents: torch.Tensor,
        uniform: torch.Tensor,
        temperature: torch.Tensor,
        fixed: torch.Tensor,
        fixed_piano_roll: torch.Tensor,
        fixed_timing: torch.Tensor,
        history_piano_roll: torch.Tensor | None = None,
        history_timing: torch.Tensor | None = None,
        conditioning: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        head, decoder = self.model.head, self.model.decoder
        step = decoder.new_decoding_step()  # so that its tables are computed in the graph
        batch_size, stride = latents.shape[0], decoder.steps_per_bar
        past = latents.new_zeros(1, 0, head.num_features).expand(batch_size, -1, -1)
        if history_piano_roll is not None:
            past = head.features(head.to_frames(history_piano_roll, history_timing))
        gates, restarts, hidden, cell = self._segments(latents, step.gate_scale)
        if conditioning is not None:
            more = decoder._conditioning_gates(conditioning, gates.dtype)
            gates = gates + (more * step.gate_scale).transpose(0, 1)
        frames = head.to_frames(fixed_piano_roll, fixed_timing).transpose(0, 1)
        levels = fixed.permute(2, 0, 1).to(torch.int32)

        def advance(carry: tuple, inputs: tuple) -> tuple[tuple, torch.Tensor]:
            hidden, cell, frame, features, past = carry
            gates, uniform, fixed_frame, level, restart, initial_hidden, initial_cell = inputs
            hidden = torch.where(restart, initial_hidden, hidden).unbind(0)
            cell = torch.where(restart, initial_cell, cell).unbind(0)
            state = StepState(hidden, cell, frame, features)
            given = FixedDrums(fixed_frame, level > 0, level > 1)
            lookback = past[:, ::stride].flatten(1)
            state = step(state, gates, lookback, temperature, uniform, given)
            past = torch.cat([past[:, 1:], state.features[:, None]], 1) if past.shape[1] else past
            hidden, cell = torch.stack(state.hidden), torch.stack(state.cell)
            return (hidden, cell, state.frame, state.features, past.clone()), state.frame.clone()

        silence = step.start(head.initial_frame(1, latents.device))
        start = [part.expand(batch_size, -1).clone() for part in (silence.frame, silence.features)]
        carry = (torch.zeros_like(hidden[0]), torch.zeros_like(cell[0]), *start, past.clone())
        inputs = (gates, uniform, frames, levels, restarts, hidden, cell)
        _, frames = scan(advance, carry, inputs)
        return head.to_drums(frames.transpose(0, 1))

    def _segments(
        self, latents: torch.Tensor, gate_scale: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """For each step the gates of its segment's context, whether the segment starts there, and
        the segment's initial hidden and cell states."""
        contexts, decoder = latents[None], self.model.decoder
        if self.model.config.decoder == "hierarchical":
            contexts = _run_conductor(self.model.conductor, latents)
        num_segments, num_steps = len(contexts), decoder.segment_steps
        states = decoder.initial_state(contexts.flatten(0, 1))
        states = [part.unflatten(1, (num_segments, -1)).transpose(0, 1) for part in states]
        gates = decoder.lstm.context_gates(contexts) * gate_scale
        gates, hidden, cell = (
            part[:, None].expand(-1, num_steps, *part.shape[1:]).flatten(0, 1)
            for part in (gates, *states)
        )
        restarts = torch.arange(num_segments * num_steps) % num_steps == 0
        return gates, restarts, hidden, cell


def _run_conductor(conductor: MusicVAEConductor, latents: torch.Tensor) -> torch.Tensor:
    """The conductor in plain operators: embeddings (bars, batch, conductor_hidden_size)."""
    hidden, cell = (list(part.unbind(0)) for part in conductor.initial_state(latents))
    embeddings = []
    for _ in range(conductor.bars):
        below = None
        for layer, (weight_ih, weight_hh, bias) in enumerate(conductor.lstm.layer_weights()):
            gates = F.linear(hidden[layer], weight_hh, bias)
            gates = gates if below is None else gates + F.linear(below, weight_ih)
            into, forget, new, out = gates.chunk(4, 1)
            cell[layer] = forget.sigmoid() * cell[layer] + into.sigmoid() * new.tanh()
            below = hidden[layer] = out.sigmoid() * cell[layer].tanh()
        embeddings.append(below)
    return torch.stack(embeddings)


def _onnx_lstm(lstm: nn.LSTM, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A bidirectional LSTM as ONNX's operator, whose gates are in another order than PyTorch's.

    inputs (batch, steps, input_size) -> outputs (steps, batch, 2 * hidden_size) and last hidden
    states (2 * layers, batch, hidden_size)
    """
    outputs, last, size = inputs.transpose(0, 1), [], lstm.hidden_size
    steps, batch_size = outputs.shape[:2]

    def reordered(name: str, layer: int) -> torch.Tensor:
        both = [
            getattr(lstm, f"{name}_l{layer}{end}").unflatten(0, (4, size))
            for end in ("", "_reverse")
        ]
        return torch.stack(both)[:, [0, 3, 1, 2]].flatten(1, 2)

    for layer in range(lstm.num_layers):
        biases = [reordered(name, layer) for name in ("bias_ih", "bias_hh")]
        weights = [reordered(name, layer) for name in ("weight_ih", "weight_hh")]
        outputs, hidden = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            [outputs, *weights, torch.cat(biases, 1)],
            {"hidden_size": size, "direction": "bidirectional"},
            dtypes=[torch.float32, torch.float32],
            shapes=[(steps, 2, batch_size, size), (2, batch_size, size)],
            version=OPSET,
        )
        outputs = outputs.transpose(1, 2).flatten(2)
        last.append(hidden)
    return outputs, torch.cat(last)


def _encoder_inputs(model: MusicVAEModel) -> dict[str, torch.Tensor]:
    shape = (2, model.config.num_drums, model.config.num_steps)
    return {"piano_roll": torch.zeros(shape, dtype=torch.uint8), "timing": torch.zeros(shape)}


def _decoder_inputs(model: MusicVAEModel) -> dict[str, torch.Tensor]:
    config, drums = model.config, _encoder_inputs(model)
    inputs = {
        "latents": torch.zeros(2, config.latent_size),
        "uniform": torch.zeros(config.num_steps, 2, model.head.num_draws),
        "temperature": torch.ones(()),
        "fixed": torch.zeros_like(
            drums["piano_roll"]
        ),  # a tensor of its own, or the export merges them
        **{f"fixed_{name}": tensor for name, tensor in drums.items()},
    }
    if past := config.lookback_bars * config.steps_per_bar:
        shape = (2, config.num_drums, past)
        inputs["history_piano_roll"] = torch.zeros(shape, dtype=torch.uint8)
        inputs["history_timing"] = torch.zeros(shape)
    _, conditioning = model.conditioning(*drums.values())
    return inputs if conditioning is None else inputs | {"conditioning": conditioning.float()}


def _export_graph(module: nn.Module, inputs: dict[str, torch.Tensor], path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    axes: dict[str, Any] = {name: {1 if name == "uniform" else 0: batch} for name in inputs}
    axes["temperature"] = None
    for library in ("torch.onnx", "onnxscript"):  # about packages and folding not needed here
        logging.getLogger(library).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own deprecations and axes
        program = torch.onnx.export(
            module.eval(),
            kwargs=inputs,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes={name: axes[name] for name in inputs},
            input_names=list(inputs),
            output_names=list(module.outputs),
            verbose=False,
            optimize=False,  # it would fold weights
        )
    refer_to_weights(program.model, "model.", path.with_name(WEIGHTS))
    ir.save(program.model, path)


def _quantize(decoder: Path, target: Path) -> None:
    """Writes a decoder whose weights, 8-bit integers, are its own."""
    onnxruntime = import_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folded = decoder.with_name("folded.onnx")  # for only constants are quantised
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(decoder, options, providers=["CPUExecutionProvider"])
    choices = {"EnableSubgraph": True, "MatMulConstBOnly": True}
    quantize_dynamic(folded, target, weight_type=QuantType.QInt8, extra_options=choices)
    folded.unlink()


def write_weights(model: MusicVAEModel, path: Path) -> None:
    """Saves weights, in float16 if that changes none, as in released models."""
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    halves = {name: tensor.half() for name, tensor in weights.items()}
    is_exact = all(torch.equal(halves[name].float(), weights[name]) for name in weights)
    save_file(halves if is_exact else weights, path, metadata={"format": "pt"})


def _describe(
    model: MusicVAEModel, processor: MusicVAEProcessor, name: str, files: Sequence[Path]
) -> dict[str, Any]:
    config = model.config
    learned = model.attribute_vectors.any(1).tolist()
    attributes = {name: row for row, name in enumerate(ATTRIBUTES) if learned[row]}
    weights = next(path for path in files if path.name == WEIGHTS)
    return {
        "format": FORMAT,
        "name": name,
        "task": task_of(config.input_transform),
        "config": {field: getattr(config, field) for field in type(config).__annotations__},
        "num_draws": model.head.num_draws,
        "temperature": SAMPLE_TEMPERATURE,
        "drums": list(DRUM_NAMES),
        "pitch_map": processor.pitch_map,
        "pitch_maps": {key: [list(each) for each in value] for key, value in PITCH_MAPS.items()},
        "attributes": list(attributes),
        "styles": list(config.styles),
        "tensors": latent_tensors(tensor_places(weights), attributes),
        "files": {
            path.name: {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "bytes": path.stat().st_size,
            }
            for path in files
        },
    }


def latent_tensors(
    places: dict[str, Place], attributes: dict[str, int]
) -> dict[str, dict[str, Any]]:
    """Where latent distributions and attribute vectors are among the weights.

    Args:
        places: of the weights.
        attributes: the row of each attribute that has a vector.
    """
    names = ("latent_mean", "latent_scale", "kernel_centers", "style_centers")
    found = {name: places[name] for name in names if name in places}
    vectors = places["attribute_vectors"]
    num_bytes = vectors.num_bytes // len(ATTRIBUTES)
    for name, row in attributes.items():
        found[f"attribute_vectors.{name}"] = vectors._replace(
            shape=vectors.shape[1:], offset=vectors.offset + row * num_bytes
        )
    return {
        name: {"dtype": place.dtype, "shape": place.shape, "offset": place.offset}
        for name, place in found.items()
    }
