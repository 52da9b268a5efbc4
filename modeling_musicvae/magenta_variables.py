"""The variables of Magenta's TensorFlow MusicVAE, as a MusicVAEModel."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .configuration_musicvae import MusicVAEConfig
from .modeling_musicvae import MusicVAEModel

CONDUCTOR = "decoder/hierarchical_level_0"
# What Magenta's models do not have, and their constant beta.
FIXED_FIELDS = {"lookback_bars": 0, "latent_kernels": 0, "dropout": 0.0, "beta_rate": 0.0}

Shapes = dict[str, tuple[int, ...]]  # of the model's parameters


def load_magenta_variables(
    variables: Mapping[str, np.ndarray], bars: int = 4, input_transform: str = "none"
) -> MusicVAEModel:
    """Builds the model that has the given variables; its sizes are inferred from them.

    Args:
        variables: every trainable variable of a MusicVAE with a `BidirectionalLstmEncoder`, by its
            TensorFlow name. Its decoder is a `CategoricalLstmDecoder` over the 512 patterns of
            nine drums, a `GrooveLstmDecoder` over nine drums or a `MultiLabelRnnNadeDecoder` over
            any number, flat or under a `HierarchicalLstmDecoder`.
        bars: bars of sixteen steps that it was made for, which do not show in the variables.
        input_transform: what it was trained to undo, see `MusicVAEConfig`; neither does that.

    Returns:
        A float32 `MusicVAEModel` that computes what Magenta's implementation computes.

    Raises:
        ValueError: a variable is missing, left over, or has another shape than its neighbours
            ask for; the message names it.
    """
    sizes = _infer_sizes(variables)
    fields = sizes | {"bars": bars, "input_transform": input_transform} | FIXED_FIELDS
    config, remaining = MusicVAEConfig(**fields), dict(variables)
    with torch.device("meta"):  # no memory for sizes that the variables do not have
        skeleton = MusicVAEModel(config)
    state_dict = _state_dict(skeleton, remaining)
    if remaining:
        raise ValueError(f"variables: found unknown {sorted(remaining)[:3]}")
    model = MusicVAEModel(config)
    model.load_state_dict(dict(model.named_buffers()) | state_dict)
    return model.eval()


def _infer_sizes(variables: Mapping[str, np.ndarray]) -> dict[str, Any]:
    hierarchical = any(name.startswith(CONDUCTOR) for name in variables)
    decoder = _decoder_scope(hierarchical)
    sizes = _infer_output(variables, decoder) | {
        "decoder": "hierarchical" if hierarchical else "flat",
        "latent_size": _units(variables, "encoder/mu"),
        "encoder_hidden_size": _units(variables, _encoder_cell(0, "fw"), gates=4),
        "encoder_num_layers": _count(variables, r"encoder/cell_(\d+)/"),
        "decoder_hidden_size": _units(
            variables, f"{decoder}/multi_rnn_cell/cell_0/lstm_cell", gates=4
        ),
        "decoder_num_layers": _count(variables, rf"{decoder}/multi_rnn_cell/cell_(\d+)/"),
    }
    if hierarchical:
        conductor_cell = f"{CONDUCTOR}/cell_0/lstm_cell"
        sizes["conductor_hidden_size"] = _units(variables, conductor_cell, gates=4)
        sizes["conductor_num_layers"] = _count(variables, rf"{CONDUCTOR}/cell_(\d+)/")
    return sizes


def _infer_output(variables: Mapping[str, np.ndarray], decoder: str) -> dict[str, Any]:
    """Which output the decoder has: NADE by its variables, the others by their size."""
    if any(name.startswith(f"{decoder}/nade/") for name in variables):
        shape = _shape(variables, f"{decoder}/nade/w_enc")
        if len(shape) != 3 or 0 in shape:
            raise ValueError(
                f"variables: found shape {shape} for {decoder}/nade/w_enc, expected "
                "(drums, 1, hidden size)"
            )
        return {"output": "nade", "num_drums": shape[0], "nade_hidden_size": shape[2]}
    layer, num_drums = f"{decoder}/output_projection", MusicVAEConfig.num_drums
    size = _units(variables, layer)
    if size == 2**num_drums:
        hits_alone = {"velocity_bins": 0, "timing_bins": 0}
        return {"output": "categorical", "hit_features": False} | hits_alone
    if size == 3 * num_drums:
        return {"output": "groove"}
    raise ValueError(
        f"variables: found shape {(size,)} for {layer}/bias, expected {(2**num_drums,)}, one-hot, "
        f"or {(3 * num_drums,)}, groove"
    )


def _state_dict(model: MusicVAEModel, variables: dict) -> dict[str, torch.Tensor]:
    """Takes the model's parameters out of `variables`."""
    config = model.config
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    decoder = _decoder_scope(config.decoder == "hierarchical")
    state_dict = _nade(variables, shapes, decoder) if config.output == "nade" else {}
    for layer in range(config.encoder_num_layers):
        for direction, suffix in (("fw", ""), ("bw", "_reverse")):
            cell = _encoder_cell(layer, direction)
            state_dict |= _lstm(variables, shapes, cell, "encoder.lstm", f"_l{layer}{suffix}")
    state_dict |= _dense(variables, shapes, "encoder/mu", "encoder.mean")
    state_dict |= _dense(variables, shapes, "encoder/sigma", "encoder.std")
    if config.decoder == "hierarchical":
        state_dict |= _dense(
            variables, shapes, f"{CONDUCTOR}/initial_state", "conductor.initial_state.projection"
        )
        for layer in range(config.conductor_num_layers):
            cell = f"{CONDUCTOR}/cell_{layer}/lstm_cell"
            state_dict |= _lstm(variables, shapes, cell, "conductor.lstm", f"_l{layer}")
    state_dict |= _dense(
        variables, shapes, f"{decoder}/z_to_initial_state", "decoder.initial_state.projection"
    )
    for layer in range(config.decoder_num_layers):
        cell = f"{decoder}/multi_rnn_cell/cell_{layer}/lstm_cell"
        state_dict |= _lstm(variables, shapes, cell, "decoder.lstm", f"_l{layer}")
    return state_dict | _dense(variables, shapes, f"{decoder}/output_projection", "decoder.output")


def _encoder_cell(layer: int, direction: str) -> str:
    return f"encoder/cell_{layer}/bidirectional_rnn/{direction}/multi_rnn_cell/cell_0/lstm_cell"


def _decoder_scope(hierarchical: bool) -> str:
    return "core_decoder/decoder" if hierarchical else "decoder"


def _nade(variables: dict, shapes: Shapes, decoder: str) -> dict[str, torch.Tensor]:
    drums, size = shapes["decoder.head.w_enc"]
    return {
        f"decoder.head.{ours}": _take(variables, f"{decoder}/nade/{theirs}", (drums, 1, size))[:, 0]
        for ours, theirs in (("w_enc", "w_enc"), ("w_dec", "w_dec_t"))
    }


def _dense(variables: dict, shapes: Shapes, source: str, target: str) -> dict[str, torch.Tensor]:
    size, input_size = shapes[f"{target}.weight"]
    kernel = _take(variables, f"{source}/kernel", (input_size, size))
    bias = _take(variables, f"{source}/bias", (size,))
    return {f"{target}.weight": kernel.T.contiguous(), f"{target}.bias": bias}


def _lstm(
    variables: dict, shapes: Shapes, source: str, target: str, suffix: str
) -> dict[str, torch.Tensor]:
    """An LSTM cell: gates i, j, f, o become i, f, g, o, and the forget gate's constant 1 a bias."""
    input_size = shapes[f"{target}.weight_ih{suffix}"][1]
    size = shapes[f"{target}.weight_hh{suffix}"][1]
    kernel = _take(variables, f"{source}/kernel", (input_size + size, 4 * size))
    bias = _take(variables, f"{source}/bias", (4 * size,))
    i, j, f, o = torch.cat([kernel, bias[None]]).split(size, -1)
    weight_ih, weight_hh, bias_ih = torch.cat([i, f, j, o], -1).T.split([input_size, size, 1], -1)
    forget_gate = torch.arange(4 * size) // size == 1
    return {
        f"{target}.weight_ih{suffix}": weight_ih.contiguous(),
        f"{target}.weight_hh{suffix}": weight_hh.contiguous(),
        f"{target}.bias_ih{suffix}": bias_ih.squeeze(-1) + forget_gate,
        f"{target}.bias_hh{suffix}": torch.zeros(4 * size),
    }


def _take(variables: dict, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if (found := _shape(variables, name)) != shape:
        raise ValueError(f"variables: found shape {found} for {name}, expected {shape}")
    return torch.from_numpy(np.array(variables.pop(name), dtype=np.float32))


def _units(variables: Mapping[str, np.ndarray], layer: str, gates: int = 1) -> int:
    """The size of a layer that has `gates` biases for each unit."""
    shape = _shape(variables, f"{layer}/bias")
    if len(shape) != 1 or shape[0] == 0 or shape[0] % gates:
        expected = "(size,)" if gates == 1 else f"({gates} * size,)"
        raise ValueError(f"variables: found shape {shape} for {layer}/bias, expected {expected}")
    return shape[0] // gates


def _shape(variables: Mapping[str, np.ndarray], name: str) -> tuple[int, ...]:
    if name not in variables:
        raise ValueError(f"variables: found no {name}")
    return np.shape(variables[name])


def _count(variables: Mapping[str, np.ndarray], pattern: str) -> int:
    """How many cells are numbered by the group of `pattern`, which starts a name."""
    return len({match[1] for name in variables if (match := re.match(pattern, name))})
