"""MusicVAEConfig: what it holds and what it refuses."""

import json
import math

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from modeling_musicvae import MusicVAEConfig

DEFAULTS = {
    "bars": 4,
    "steps_per_bar": 16,
    "num_drums": 9,
    "output": "categorical",
    "velocity_bins": 0,
    "timing_bins": 0,
    "latent_size": 256,
    "encoder_hidden_size": 512,
    "encoder_num_layers": 1,
    "decoder": "hierarchical",
    "conductor_hidden_size": 256,
    "conductor_num_layers": 2,
    "decoder_hidden_size": 256,
    "decoder_num_layers": 2,
    "free_bits": 48.0,
    "max_beta": 0.2,
    "beta_rate": 0.0,
}
# Another value for every field that has one.
CHANGED = {
    "bars": 2,
    "steps_per_bar": 24,
    "num_drums": 5,
    "latent_size": 6,
    "encoder_hidden_size": 7,
    "encoder_num_layers": 2,
    "decoder": "flat",
    "conductor_hidden_size": 8,
    "conductor_num_layers": 1,
    "decoder_hidden_size": 9,
    "decoder_num_layers": 3,
    "free_bits": 1.5,
    "max_beta": 1,
    "beta_rate": 0.9999,
}


def fields(config: MusicVAEConfig) -> dict:
    return {name: getattr(config, name) for name in DEFAULTS}


def test_defaults():
    assert fields(MusicVAEConfig()) == DEFAULTS


def test_exactly_the_fields_are_saved(tmp_path):
    MusicVAEConfig().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert set(saved) == {*DEFAULTS, "model_type", "transformers_version", "auto_map"}


@pytest.mark.parametrize("loader", [MusicVAEConfig, AutoConfig])
def test_a_saved_config_loads_with_every_field(loader, tmp_path):
    MusicVAEConfig(**CHANGED).save_pretrained(tmp_path)
    config = loader.from_pretrained(tmp_path)
    assert type(config) is MusicVAEConfig
    assert fields(config) == DEFAULTS | CHANGED


SIZES = [name for name, value in DEFAULTS.items() if type(value) is int and "bins" not in name]
WEIGHTS = ["free_bits", "max_beta", "beta_rate"]
INVALID = [
    *((name, value) for name in SIZES for value in (0, -1, 2.0, "2", None, True)),
    *((name, value) for name in WEIGHTS for value in (-0.1, math.nan, math.inf, "1", None)),
    ("num_drums", 13),
    ("output", "groove"),
    ("velocity_bins", 8),
    ("timing_bins", 8),
    ("decoder", "recurrent"),
    ("decoder", None),
    ("beta_rate", 1),
]


@pytest.mark.parametrize("name, value", INVALID, ids=[f"{name}={value}" for name, value in INVALID])
def test_an_invalid_field_is_named_with_what_was_found(name, value):
    with pytest.raises(StrictDataclassError, match=rf"\b{name}\b.*{value}"):
        MusicVAEConfig(**{name: value})


@pytest.mark.parametrize("decoder, num_segments", [("hierarchical", 3), ("flat", 1)])
def test_derived_sizes(decoder, num_segments):
    config = MusicVAEConfig(bars=3, steps_per_bar=24, num_drums=5, decoder=decoder)
    assert (config.num_steps, config.num_patterns) == (72, 32)
    assert config.num_segments == num_segments
