"""Arguments of a training run: recipes, the command line, and what is refused."""

import inspect
import re
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml
from huggingface_hub.errors import StrictDataclassError
from training_runs import INTENDED, MOST, RECIPES, parse

from modeling_musicvae import MusicVAEConfig
from musicvae.training.arguments import described_arguments, parse_arguments


@pytest.fixture
def recipe(tmp_path) -> Callable[[str], Path]:
    def recipe(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return recipe


def test_the_recipe_gives_values_and_the_command_line_wins(recipe):
    text = "data: demo\nbars: 2\nbatch_size: 32\nlearning_rate: 3e-4\nmixed_precision: no\n"
    arguments = parse(batch_size=16, config=recipe(text))
    assert arguments.data.data == "demo"
    assert arguments.architecture.bars == 2
    assert arguments.training.batch_size == 16
    assert arguments.training.learning_rate == 0.0003
    assert arguments.training.mixed_precision == "no"
    assert arguments.training.save_steps == 500  # the default


def test_the_command_is_kept_without_what_the_recipe_adds(recipe):
    path = recipe("data: demo")
    expected = f"accelerate launch train_accelerate.py --seed=1 --config={path}"
    assert parse(seed=1, config=path).command == expected


def test_a_list_of_the_recipe_is_one_on_the_command_line(recipe):
    path = recipe("input_transform: remove_drums\nremoved_drums: [closed hi-hat, ride]\nbars: 2")
    assert parse(config=path).architecture.removed_drums == [2, 8]
    argv = ["--config", str(path), "--removed_drums", "low tom", "crash"]
    assert parse_arguments(argv).architecture.removed_drums == [4, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: demo\nbatchsize: 3", r"recipe.yaml: found unknown arguments \['batchsize'\]"),
        ("- data\n- demo", "recipe.yaml: found list, expected 'argument: value' lines"),
        ("", "recipe.yaml: found NoneType, expected 'argument: value' lines"),
        ("data: [demo", "recipe.yaml"),
    ],
    ids=["unknown argument", "list", "empty", "no YAML"],
)
def test_a_malformed_recipe_is_refused_by_name(recipe, text, message):
    with pytest.raises((ValueError, yaml.YAMLError), match=message):
        parse(config=recipe(text))


def test_a_missing_recipe_is_refused_by_name(tmp_path):
    message = f"config: found {tmp_path}/recipe.yaml, expected a YAML file or one of add_hihat, "
    with pytest.raises(ValueError, match=message):
        parse(config=tmp_path / "recipe.yaml")


def test_a_recipe_of_the_package_is_found_by_its_name():
    assert (
        parse(config="humanize").architecture
        == parse(config=RECIPES / "humanize.yaml").architecture
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hop_bars", 0),
        ("num_proc", 0),
        ("num_workers", -1),
        ("max_steps", 0),
        ("num_epochs", 0),
        ("batch_size", 0),
        ("gradient_accumulation_steps", 0),
        ("max_skipped_steps", -1),
        ("learning_rate", 0.0),
        ("learning_rate", "nan"),
        ("learning_rate", "inf"),
        ("min_learning_rate", -1e-9),
        ("min_learning_rate", "nan"),
        ("min_learning_rate", 0.1),  # more than the learning rate
        ("warmup_steps", -1),
        ("decay_steps", 0),
        ("weight_decay", -0.1),
        ("weight_decay", "inf"),
        ("max_grad_norm", 0.0),
        ("max_grad_norm", -1e-5),
        ("seed", -1),
        ("eval_steps", 0),
        ("save_steps", 0),
        ("num_samples", 0),
        ("velocity_scaling", -0.1),
        ("velocity_scaling", 1.1),
        ("velocity_scaling", "nan"),
        ("hit_dropout", -0.1),
        ("hit_dropout", 1.1),
        ("recombination", 1.5),
    ],
)
def test_a_number_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}: found {value}, expected"):
        parse(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bars", 0),
        ("latent_size", 0),
        ("velocity_bins", -1),
        ("timing_bins", 8),
        ("nade_hidden_size", 0),
        ("encoder_hit_dropout", 1.5),
        ("dropout", 1.0),
        ("scheduled_sampling_rate", -1),
        ("free_bits", -1),
        ("max_beta", -1),
        ("beta_rate", 1),
    ],
)
def test_an_impossible_architecture_is_refused_by_name(name, value):
    with pytest.raises(StrictDataclassError, match=f"{name}: found {value}"):
        parse(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bars", "four"),
        ("learning_rate", "fast"),
        ("decoder", "deep"),
        ("output", "sound"),
        ("input_transform", "reverse"),
        ("removed_drums", "cowbell"),
        ("scheduled_sampling_schedule", "slow"),
    ],
)
def test_a_word_that_makes_no_sense_is_refused_by_name(name, value, capsys):
    with pytest.raises(SystemExit):
        parse(**{name: value})
    assert re.search(f"--{name}.*: found .?{value}.?, expected", capsys.readouterr().err)


def test_a_step_is_made_of_equal_parts():
    arguments = parse(batch_size=12, gradient_accumulation_steps=4)
    assert arguments.training.gradient_accumulation_steps == 4
    message = "^batch_size: found 12, expected a multiple of gradient_accumulation_steps, 5"
    with pytest.raises(ValueError, match=message):
        parse(batch_size=12, gradient_accumulation_steps=5)


def test_data_dir_goes_with_the_data():
    with pytest.raises(ValueError, match="^data_dir: found none, expected the folder"):
        parse(data="midi_folder")
    with pytest.raises(ValueError, match="^data_dir: found my_drums, expected none"):
        parse(data="demo", data_dir="my_drums")


def test_data_is_known_or_a_dataset():
    assert parse(data="user/name").data.data == "user/name"
    with pytest.raises(ValueError, match="^data: found 'nowhere', expected groove, .*'user/name'"):
        parse(data="nowhere")


def test_there_are_no_other_recipes():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(INTENDED)


@pytest.mark.parametrize("name", INTENDED)
def test_a_recipe_trains_the_model_that_its_name_says(name):
    arguments = parse(config=RECIPES / f"{name}.yaml")
    settings = asdict(arguments.data) | asdict(arguments.architecture)
    assert {key: settings[key] for key in MOST} == MOST | INTENDED[name]
    assert arguments.training.output_dir == f"outputs/{name}"


def test_the_architecture_is_all_of_the_config_but_the_kit():
    names = set(inspect.get_annotations(MusicVAEConfig)) - {"num_drums", "styles"}
    defaults = {name: getattr(MusicVAEConfig(), name) for name in names}
    defaults["removed_drums"] = list(defaults["removed_drums"])
    assert asdict(parse().architecture) == defaults


def test_the_config_documents_every_argument_of_the_architecture():
    lookback = next(
        field for field in fields(parse().architecture) if field.name == "lookback_bars"
    )
    assert lookback.metadata["help"].startswith("how many bars back the decoder's input goes")
    assert lookback.type is int


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        (
            "A.\n\nArgs:\n    a: one.\n    b: two,\n        in two lines.\n",
            {"a": "one", "b": "two, in two lines"},
        ),
        ("A.\n\nArgs:\n    a: one: 1.\n\nRaises:\n    b: two.\n", {"a": "one: 1"}),
    ],
    ids=["two lines", "another section"],
)
def test_descriptions_are_those_of_the_docstring(docstring, expected):
    assert described_arguments(docstring) == expected


def test_help_has_one_line_on_every_argument(capsys):
    with pytest.raises(SystemExit, match="^0$"):
        parse_arguments(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    arguments = parse()
    for group in (arguments.data, arguments.architecture, arguments.training):
        for field in fields(group):
            assert f"{field.metadata['help']} (default:" in shown, field.name
