"""Export of a model to ONNX: docs/onnx.md describes the folder."""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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
from .onnx_model import DECODER, DESCRIPTION, ENCODER, FORMAT, INT8_DECODER, LATENTS, task_of
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
    model = model.eval()
    replace = (folder / DESCRIPTION).is_file()
    with torch.no_grad(), whole_folder(folder, replace) as temporary:
        _export_graph(ExportedEncoder(model), _encoder_inputs(model), temporary / ENCODER)
        _export_graph(ExportedDecoder(model), _decoder_inputs(model), temporary / DECODER)
        if int8:
            _quantize(temporary / DECODER, temporary / INT8_DECODER)
        tensors = _write_tensors(model, temporary / LATENTS)
        description = _describe(model, processor, name, tensors, temporary)
        text = json.dumps(description, indent=1) + "\n"
        (temporary / DESCRIPTION).write_text(text, encoding="utf-8")


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
        self.model, self.head, self.decoder = model, model.head, model.decoder
        self.step = model.decoder.decoding_step()

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
        batch_size, stride = latents.shape[0], self.decoder.steps_per_bar
        past = latents.new_zeros(1, 0, self.head.num_features).expand(batch_size, -1, -1)
        if history_piano_roll is not None:
            past = self.head.features(self.head.to_frames(history_piano_roll, history_timing))
        gates, restarts, hidden, cell = self._segments(latents)
        if conditioning is not None:
            more = self.decoder._conditioning_gates(conditioning, gates.dtype)
            gates = gates + (more * self.step.gate_scale).transpose(0, 1)
        frames = self.head.to_frames(fixed_piano_roll, fixed_timing).transpose(0, 1)
        levels = fixed.permute(2, 0, 1).to(torch.int32)

        def advance(carry: tuple, inputs: tuple) -> tuple[tuple, torch.Tensor]:
            hidden, cell, frame, features, past = carry
            gates, uniform, fixed_frame, level, restart, initial_hidden, initial_cell = inputs
            hidden = torch.where(restart, initial_hidden, hidden).unbind(0)
            cell = torch.where(restart, initial_cell, cell).unbind(0)
            state = StepState(hidden, cell, frame, features)
            given = FixedDrums(fixed_frame, level > 0, level > 1)
            lookback = past[:, ::stride].flatten(1)
            state = self.step(state, gates, lookback, temperature, uniform, given)
            past = torch.cat([past[:, 1:], state.features[:, None]], 1) if past.shape[1] else past
            hidden, cell = torch.stack(state.hidden), torch.stack(state.cell)
            return (hidden, cell, state.frame, state.features, past.clone()), state.frame.clone()

        silence = self.step.start(self.head.initial_frame(1, latents.device))
        start = [part.expand(batch_size, -1).clone() for part in (silence.frame, silence.features)]
        carry = (torch.zeros_like(hidden[0]), torch.zeros_like(cell[0]), *start, past.clone())
        inputs = (gates, uniform, frames, levels, restarts, hidden, cell)
        _, frames = scan(advance, carry, inputs)
        return self.head.to_drums(frames.transpose(0, 1))

    def _segments(self, latents: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """For each step the gates of its segment's context, whether the segment starts there, and
        the segment's initial hidden and cell states."""
        contexts = latents[None]
        if self.model.config.decoder == "hierarchical":
            contexts = _run_conductor(self.model.conductor, latents)
        num_segments, num_steps = len(contexts), self.decoder.segment_steps
        states = self.decoder.initial_state(contexts.flatten(0, 1))
        states = [part.unflatten(1, (num_segments, -1)).transpose(0, 1) for part in states]
        gates = self.decoder.lstm.context_gates(contexts) * self.step.gate_scale
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
        )
    program.save(str(path), external_data=False)


def _quantize(decoder: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options = {"EnableSubgraph": True, "MatMulConstBOnly": True}
    quantize_dynamic(decoder, target, weight_type=QuantType.QInt8, extra_options=options)


def _write_tensors(model: MusicVAEModel, path: Path) -> dict[str, dict[str, Any]]:
    """Writes the latent distributions and attribute vectors; returns where each is."""
    vectors = model.attribute_vectors[model.attribute_vectors.any(1)]
    tensors = {"latent_mean": model.latent_mean, "latent_scale": model.latent_scale}
    tensors |= {"attribute_vectors": vectors} if len(vectors) else {}
    if getattr(model.config, "styles", ()):
        tensors |= {"style_means": model.style_means, "style_scales": model.style_scales}
    arrays = {name: tensor.float().numpy().astype("<f4") for name, tensor in tensors.items()}
    offsets = np.cumsum([0, *(array.nbytes for array in arrays.values())]).tolist()
    path.write_bytes(b"".join(array.tobytes() for array in arrays.values()))
    return {
        name: {"shape": list(array.shape), "offset": offset}
        for (name, array), offset in zip(arrays.items(), offsets, strict=False)
    }


def _describe(
    model: MusicVAEModel,
    processor: MusicVAEProcessor,
    name: str,
    tensors: dict[str, dict[str, Any]],
    folder: Path,
) -> dict[str, Any]:
    learned = model.attribute_vectors.any(1).tolist()
    return {
        "format": FORMAT,
        "name": name,
        "task": task_of(model.config.input_transform),
        "config": model.config.to_dict(),
        "num_draws": model.head.num_draws,
        "temperature": SAMPLE_TEMPERATURE,
        "drums": list(DRUM_NAMES),
        "pitch_map": processor.pitch_map,
        "pitch_maps": {key: [list(each) for each in value] for key, value in PITCH_MAPS.items()},
        "attributes": [
            each for each, is_learned in zip(ATTRIBUTES, learned, strict=True) if is_learned
        ],
        "styles": list(getattr(model.config, "styles", ())),
        "tensors": tensors,
        "files": {
            path.name: {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "bytes": path.stat().st_size,
            }
            for path in sorted(folder.iterdir())
        },
    }
