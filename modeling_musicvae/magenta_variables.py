"""The variables of Magenta's TensorFlow MusicVAE, as a MusicVAEModel."""

import re
from collections.abc import Mapping

import numpy as np
import torch

from .configuration_musicvae import MusicVAEConfig
from .modeling_musicvae import MusicVAEModel

CONDUCTOR = "decoder/hierarchical_level_0"


def load_magenta_variables(variables: Mapping[str, np.ndarray]) -> MusicVAEModel:
    """Builds the model that has the given variables; its sizes are inferred from them.

    Args:
        variables: every trainable variable of a MusicVAE with a `BidirectionalLstmEncoder` and a
            `CategoricalLstmDecoder`, flat or under a `HierarchicalLstmDecoder`, by its TensorFlow
            name. How many bars it was made for does not show in them: it is taken to be four, of
            sixteen steps.

    Returns:
        A float32 `MusicVAEModel` that computes what the original computes.

    Raises:
        ValueError: a variable is missing, left over, or has another shape than its neighbours
            ask for.
    """
    model = MusicVAEModel(_infer_config(variables))
    remaining = dict(variables)
    state_dict = _state_dict(model.config, remaining)
    if remaining:
        raise ValueError(f"variables: found unknown {sorted(remaining)}")
    for name, parameter in model.state_dict().items():
        if state_dict[name].shape != parameter.shape:
            raise ValueError(
                f"variables: found shape {tuple(state_dict[name].shape)} for {name}, expected "
                f"{tuple(parameter.shape)}"
            )
    model.load_state_dict(state_dict)
    return model.eval()


def _infer_config(variables: Mapping[str, np.ndarray]) -> MusicVAEConfig:
    hierarchical = any(name.startswith(CONDUCTOR) for name in variables)
    decoder = _decoder_scope(hierarchical)
    sizes = {
        "decoder": "hierarchical" if hierarchical else "flat",
        "latent_size": _shape(variables, "encoder/mu/kernel")[1],
        "encoder_hidden_size": _shape(variables, _encoder_cell(0, "fw") + "/bias")[0] // 4,
        "encoder_num_layers": _count(variables, r"encoder/cell_(\d+)/"),
        "decoder_hidden_size": _shape(variables, f"{decoder}/output_projection/kernel")[0],
        "decoder_num_layers": _count(variables, rf"{decoder}/multi_rnn_cell/cell_(\d+)/"),
    }
    if hierarchical:
        conductor_bias = _shape(variables, f"{CONDUCTOR}/cell_0/lstm_cell/bias")
        sizes["conductor_hidden_size"] = conductor_bias[0] // 4
        sizes["conductor_num_layers"] = _count(variables, rf"{CONDUCTOR}/cell_(\d+)/")
    return MusicVAEConfig(**sizes)


def _state_dict(config: MusicVAEConfig, variables: dict) -> dict[str, torch.Tensor]:
    """Takes the model's parameters out of `variables`."""
    state_dict = {}
    for layer in range(config.encoder_num_layers):
        for direction, suffix in (("fw", ""), ("bw", "_reverse")):
            cell = _encoder_cell(layer, direction)
            state_dict |= _lstm(variables, cell, "encoder.lstm", f"_l{layer}{suffix}")
    state_dict |= _dense(variables, "encoder/mu", "encoder.mean")
    state_dict |= _dense(variables, "encoder/sigma", "encoder.std")
    if config.decoder == "hierarchical":
        state_dict |= _dense(
            variables, f"{CONDUCTOR}/initial_state", "conductor.initial_state.projection"
        )
        for layer in range(config.conductor_num_layers):
            cell = f"{CONDUCTOR}/cell_{layer}/lstm_cell"
            state_dict |= _lstm(variables, cell, "conductor.lstm", f"_l{layer}")
    decoder = _decoder_scope(config.decoder == "hierarchical")
    state_dict |= _dense(
        variables, f"{decoder}/z_to_initial_state", "decoder.initial_state.projection"
    )
    for layer in range(config.decoder_num_layers):
        cell = f"{decoder}/multi_rnn_cell/cell_{layer}/lstm_cell"
        state_dict |= _lstm(variables, cell, "decoder.lstm", f"_l{layer}")
    return state_dict | _dense(variables, f"{decoder}/output_projection", "decoder.output")


def _encoder_cell(layer: int, direction: str) -> str:
    return f"encoder/cell_{layer}/bidirectional_rnn/{direction}/multi_rnn_cell/cell_0/lstm_cell"


def _decoder_scope(hierarchical: bool) -> str:
    return "core_decoder/decoder" if hierarchical else "decoder"


def _dense(variables: dict, source: str, target: str) -> dict[str, torch.Tensor]:
    kernel, bias = _take(variables, f"{source}/kernel"), _take(variables, f"{source}/bias")
    return {f"{target}.weight": kernel.T.contiguous(), f"{target}.bias": bias}


def _lstm(variables: dict, source: str, target: str, suffix: str) -> dict[str, torch.Tensor]:
    """An LSTM cell: gates i, j, f, o become i, f, g, o, and the forget gate's constant 1 a bias."""
    kernel, bias = _take(variables, f"{source}/kernel"), _take(variables, f"{source}/bias")
    if bias.numel() % 4 or kernel.shape[-1:] != bias.shape:
        raise ValueError(
            f"variables: found kernel {tuple(kernel.shape)} and bias {tuple(bias.shape)} in "
            f"{source}, expected (input + size, 4 * size) and (4 * size,)"
        )
    size = bias.numel() // 4
    i, j, f, o = torch.cat([kernel, bias[None]]).split(size, -1)
    weight = torch.cat([i, f, j, o], -1).T
    bias_ih = weight[:, -1] + torch.cat(
        [torch.zeros(size), torch.ones(size), torch.zeros(2 * size)]
    )
    return {
        f"{target}.weight_ih{suffix}": weight[:, : -1 - size].contiguous(),
        f"{target}.weight_hh{suffix}": weight[:, -1 - size : -1].contiguous(),
        f"{target}.bias_ih{suffix}": bias_ih,
        f"{target}.bias_hh{suffix}": torch.zeros(4 * size),
    }


def _take(variables: dict, name: str) -> torch.Tensor:
    _shape(variables, name)
    return torch.from_numpy(np.array(variables.pop(name), dtype=np.float32))


def _shape(variables: Mapping[str, np.ndarray], name: str) -> tuple[int, ...]:
    if name not in variables:
        raise ValueError(f"variables: found no {name}")
    return np.shape(variables[name])


def _count(variables: Mapping[str, np.ndarray], pattern: str) -> int:
    """How many cells are numbered by the group of `pattern`, which starts a name."""
    return len({match[1] for name in variables if (match := re.match(pattern, name))})
