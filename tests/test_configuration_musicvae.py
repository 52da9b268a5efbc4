"""MusicVAEConfig: what it holds and what it refuses."""

import json
import math
import re

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from modeling_musicvae import MusicVAEConfig

DEFAULTS = {
    "bars": 4,
    "steps_per_bar": 16,
    "num_drums": 9,
    "output": "categorical",
    "velocity_bins": 8,
    "timing_bins": 9,
    "hit_features": True,
    "nade_hidden_size": 128,
    "input_transform": "none",
    "removed_drums": [2],
    "encoder_hit_dropout": 0.0,
    "hits_as_controls": False,
    "input_as_controls": False,
    "encoder_conditioning_size": 0,
    "styles": [],
    "latent_size": 256,
    "latent_kernels": 256,
    "encoder_hidden_size": 256,
    "encoder_num_layers": 1,
    "decoder": "hierarchical",
    "lookback_bars": 3,
    "conductor_hidden_size": 256,
    "conductor_num_layers": 2,
    "decoder_hidden_size": 256,
    "decoder_num_layers": 2,
    "dropout": 0.2,
    "input_dropout": 0.1,
    "free_bits": 48.0,
    "max_beta": 0.2,
    "beta_rate": 0.999,
    "scheduled_sampling_schedule": "constant",
    "scheduled_sampling_rate": 0.0,
}
# Another value for every field.
CHANGED = {
    "bars": 2,
    "steps_per_bar": 24,
    "num_drums": 5,
    "output": "groove",
    "velocity_bins": 0,
    "timing_bins": 3,
    "hit_features": False,
    "nade_hidden_size": 10,
    "input_transform": "humanize",
    "removed_drums": [0, 4],
    "encoder_hit_dropout": 0.5,
    "hits_as_controls": True,
    "input_as_controls": True,
    "encoder_conditioning_size": 16,
    "styles": ["funk", "jazz"],
    "latent_size": 6,
    "latent_kernels": 10,
    "encoder_hidden_size": 7,
    "encoder_num_layers": 2,
    "decoder": "flat",
    "lookback_bars": 1,
    "conductor_hidden_size": 8,
    "conductor_num_layers": 1,
    "decoder_hidden_size": 9,
    "decoder_num_layers": 3,
    "dropout": 0.25,
    "input_dropout": 0.3,
    "free_bits": 1.5,
    "max_beta": 1,
    "beta_rate": 0.9999,
    "scheduled_sampling_schedule": "inverse_sigmoid",
    "scheduled_sampling_rate": 1000,
}


def fields(config: MusicVAEConfig) -> dict:
    values = {name: getattr(config, name) for name in DEFAULTS}
    lists = ("removed_drums", "styles")
    return values | {name: list(getattr(config, name)) for name in lists}


def test_defaults():
    assert fields(MusicVAEConfig()) == DEFAULTS


def test_exactly_the_fields_are_saved(tmp_path):
    MusicVAEConfig().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert set(saved) == {*DEFAULTS, "model_type", "transformers_version", "auto_map"}


@pytest.mark.parametrize("loader", [MusicVAEConfig, AutoConfig])
def test_a_saved_config_loads_with_every_field(loader, tmp_path):
    assert CHANGED.keys() == DEFAULTS.keys()
    MusicVAEConfig(**CHANGED).save_pretrained(tmp_path)
    config = loader.from_pretrained(tmp_path)
    assert type(config) is MusicVAEConfig
    assert fields(config) == CHANGED


def saved_as(folder, fields: dict, without: list[str] = ()) -> None:
    MusicVAEConfig().save_pretrained(folder)
    path = folder / "config.json"
    saved = {k: v for k, v in json.loads(path.read_text()).items() if k not in without}
    path.write_text(json.dumps(saved | fields))


NEW_FIELDS = {
    "lookback_bars": 0,
    "encoder_conditioning_size": 0,
    "input_dropout": 0.0,
    "latent_kernels": 0,
}
both_loaders = pytest.mark.parametrize("loader", [MusicVAEConfig, AutoConfig])


@both_loaders
def test_a_config_that_was_saved_before_a_field_was_there_means_what_it_meant(loader, tmp_path):
    saved_as(tmp_path, {}, without=list(NEW_FIELDS))
    assert fields(loader.from_pretrained(tmp_path)) == DEFAULTS | NEW_FIELDS
    assert loader.from_pretrained(tmp_path, lookback_bars=2).lookback_bars == 2


@both_loaders
def test_styles_of_before_there_were_kernels_are_not_read(loader, tmp_path):
    saved_as(tmp_path, {"styles": ["funk"]}, without=["latent_kernels"])
    assert loader.from_pretrained(tmp_path).styles == []


def test_styles_need_kernels():
    with pytest.raises(StrictDataclassError, match="expected none where latent_kernels is 0"):
        MusicVAEConfig(styles=["funk"], latent_kernels=0)


@both_loaders
def test_a_config_that_was_saved_with_old_names_means_what_it_meant(loader, tmp_path):
    new = {
        "encoder_hit_dropout": 0.5,
        "scheduled_sampling_schedule": "inverse_sigmoid",
        "scheduled_sampling_rate": 1000,
    }
    old = dict(
        zip(("note_dropout", "sampling_schedule", "sampling_rate"), new.values(), strict=True)
    )
    saved_as(tmp_path, old | {"sampling_method": "parallel"}, without=list(new))
    config = loader.from_pretrained(tmp_path)
    assert fields(config) == DEFAULTS | new
    assert not any(hasattr(config, name) for name in [*old, "sampling_method"])


SIZES = [name for name, value in DEFAULTS.items() if type(value) is int]
MAY_BE_0 = ["lookback_bars", "encoder_conditioning_size", "latent_kernels"]
SIZES = [name for name in SIZES if "bins" not in name and name not in MAY_BE_0]
WEIGHTS = [
    "free_bits",
    "max_beta",
    "beta_rate",
    "encoder_hit_dropout",
    "input_dropout",
    "scheduled_sampling_rate",
]
CHOICES = ["output", "input_transform", "decoder", "scheduled_sampling_schedule"]
INVALID = [
    *((name, value) for name in SIZES for value in (0, -1, 2.0, "2", None, True)),
    *((name, value) for name in WEIGHTS for value in (-0.1, math.nan, math.inf, "1", None)),
    *((name, value) for name in CHOICES for value in ("other", None)),
    *((name, value) for name in MAY_BE_0 for value in (-1, 2.0, "2", None, True)),
    *(("velocity_bins", value) for value in (-1, 128, 8.0, None, True)),
    *(("timing_bins", value) for value in (-1, 2, 8, 9.0, None, True)),
    *(("removed_drums", value) for value in (2, "2", [2.0], None)),
    *(("styles", value) for value in ("funk", [1], None, ["funk", "funk"], ["funk", ""])),
    ("hits_as_controls", "yes"),
    ("num_drums", 13),
    ("beta_rate", 1),
    ("encoder_hit_dropout", 1.1),
    ("input_dropout", 1.1),
    ("scheduled_sampling_rate", 1.1),
]


@pytest.mark.parametrize("name, value", INVALID, ids=[f"{name}={value}" for name, value in INVALID])
def test_an_invalid_field_is_named_with_what_was_found(name, value):
    with pytest.raises(StrictDataclassError, match=rf"\b{name}\b.*{re.escape(str(value))}"):
        MusicVAEConfig(**{name: value})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(
            pytest.param(
                {"input_transform": transform, "num_drums": 3},
                "num_drums: found 3, expected 4 or more for taps",
                id=f"{transform} without the drum that it plays",
            )
            for transform in ("tap", "tap_fixed_velocity")
        ),
        *(
            pytest.param(
                {"input_transform": "remove_drums", "removed_drums": drums, "num_drums": 5},
                f"removed_drums: found {drums}, expected some of the drums 0 to 4, but not all",
                id=f"removing {drums} of five drums",
            )
            for drums in ([], [5], [-1], [0, 1, 2, 3, 4])
        ),
        *(
            pytest.param(
                {"hits_as_controls": True, **hits_alone},
                "hits_as_controls: found True, expected False: the output has hits alone",
                id=f"controls for {hits_alone}",
            )
            for hits_alone in ({"output": "nade"}, {"velocity_bins": 0, "timing_bins": 0})
        ),
        pytest.param(
            {"input_as_controls": True},
            "input_as_controls: found True, expected False: with input_transform 'none' the "
            "decoder would be conditioned on its target",
            id="controls that give away everything",
        ),
        pytest.param(
            {"encoder_conditioning_size": 8},
            "encoder_conditioning_size: found 8, expected 0: with input_transform 'none' the "
            "decoder would be conditioned on its target",
            id="an encoder that gives away everything",
        ),
        *(
            pytest.param(
                {"hits_as_controls": True, "input_transform": transform},
                f"hits_as_controls: found True, expected False: with input_transform {transform!r} "
                "the hits are the decoder's target",
                id=f"controls that give away what {transform} took",
            )
            for transform in ("tap", "tap_fixed_velocity", "remove_drums")
        ),
        *(
            pytest.param(
                {"scheduled_sampling_schedule": "inverse_sigmoid", "scheduled_sampling_rate": rate},
                f"scheduled_sampling_rate: found {rate}, expected 1 to inf for the "
                "inverse_sigmoid schedule",
                id=f"inverse_sigmoid of {rate}",
            )
            for rate in (0.0, 0.5, math.inf, math.nan)
        ),
        *(
            pytest.param(
                {"scheduled_sampling_schedule": schedule, "scheduled_sampling_rate": 1000},
                f"scheduled_sampling_rate: found 1000, expected 0 to 1 for the {schedule} schedule",
                id=f"{schedule} of 1000",
            )
            for schedule in ("constant", "exponential")
        ),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(StrictDataclassError, match=re.escape(message)):
        MusicVAEConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"output": "nade", "num_drums": 61}, id="another kit"),
        pytest.param({"removed_drums": [9, 10]}, id="drums that are not removed"),
        pytest.param({"velocity_bins": 127, "timing_bins": 1}, id="extreme bins"),
        pytest.param({"input_transform": "tap", "num_drums": 4}, id="taps on the last drum"),
        pytest.param({"hits_as_controls": True, "velocity_bins": 0}, id="controls for timing"),
        pytest.param({"hits_as_controls": True, "timing_bins": 0}, id="controls for velocity"),
        pytest.param({"bars": 1, "lookback_bars": 16}, id="look-back beyond the window"),
        pytest.param({"encoder_hit_dropout": 1, "scheduled_sampling_rate": 1}, id="certainty"),
    ],
)
def test_the_limits_are_allowed(fields):
    config = MusicVAEConfig(**fields)
    assert {name: getattr(config, name) for name in fields} == fields


@pytest.mark.parametrize("decoder, num_segments", [("hierarchical", 3), ("flat", 1)])
def test_derived_sizes(decoder, num_segments):
    config = MusicVAEConfig(bars=3, steps_per_bar=24, num_drums=5, decoder=decoder)
    assert (config.num_steps, config.num_patterns) == (72, 32)
    assert config.num_segments == num_segments


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, True, id="velocity and timing"),
        pytest.param({"timing_bins": 0}, True, id="velocity"),
        pytest.param({"velocity_bins": 0}, True, id="timing"),
        pytest.param({"velocity_bins": 0, "timing_bins": 0}, False, id="hits"),
        pytest.param({"output": "groove", "velocity_bins": 0, "timing_bins": 0}, True, id="groove"),
        pytest.param({"output": "nade"}, False, id="nade"),
    ],
)
def test_models_expression_where_the_output_has_more_than_hits(fields, expected):
    assert MusicVAEConfig(**fields).models_expression is expected


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        ("none", True),
        ("humanize", False),
        ("tap", True),
        ("tap_fixed_velocity", False),
        ("remove_drums", True),
    ],
)
def test_reads_velocity_where_the_input_has_one(transform, expected):
    assert MusicVAEConfig(input_transform=transform).reads_velocity is expected
