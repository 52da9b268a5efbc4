"""train_accelerate.py: its arguments, its measures, whole runs, going on, and what it refuses."""

import inspect
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from huggingface_hub import ModelCard
from huggingface_hub.errors import StrictDataclassError
from matplotlib import image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.distributions import Normal, kl_divergence
from torch.utils.data import DataLoader

import train_accelerate
from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from modeling_musicvae.drum_attributes import ATTRIBUTES
from processing import MusicVAEProcessor
from processing.demo_grooves import write_demo_grooves
from processing.errors import DatasetFolderError

SCRIPT = Path(train_accelerate.__file__)
RECIPES = SCRIPT.parent / "recipes"
WEIGHTS = "model.safetensors"
TINY = {
    "latent_size": 8,
    "encoder_hidden_size": 8,
    "conductor_hidden_size": 8,
    "decoder_hidden_size": 8,
    "num_samples": 2,
}
WAYS = ("teacher_forced", "sampled")
HITS_METRICS = {
    "loss",
    "elbo",
    "reconstruction_loss",
    "kl_bits",
    *(f"pattern_accuracy_{way}" for way in WAYS),
}
EXPRESSION_METRICS = {
    *("hits_loss", "velocity_loss", "timing_loss"),
    *(f"{error}_{way}" for error in ("velocity_mae", "timing_mae_ms") for way in WAYS),
}
METRICS = HITS_METRICS | EXPRESSION_METRICS


def parse(**arguments) -> train_accelerate.Arguments:
    return train_accelerate.parse_arguments(as_argv(arguments))


def as_argv(arguments: dict) -> list[str]:
    return [f"--{name}={value}" for name, value in arguments.items()]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def checkpoint_names(output_dir: Path) -> set[str]:
    return {path.name for path in (output_dir / "checkpoints").iterdir()}


def best_checkpoint(output_dir: Path) -> tuple[Path, dict[str, float]]:
    """The folder of the best checkpoint and its metrics, as the last checkpoint has them."""
    last = train_accelerate.checkpoints(output_dir)[-1]
    progress = json.loads((last / "progress.json").read_text())
    return last.with_name(f"checkpoint-{progress['best_step']}"), progress["best_metrics"]


def scalars(output_dir: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows: the values of each scalar by step."""
    events = EventAccumulator(str(output_dir / "logs")).Reload()
    return {
        name: {event.step: event.value for event in events.Scalars(name)}
        for name in events.Tags()["scalars"]
    }


def differing_weights(folder: Path, other: Path) -> list[str]:
    """Names of the tensors that both folders hold, but not with the same bits."""
    weights, others = (load_file(path / WEIGHTS) for path in (folder, other))
    assert weights.keys() == others.keys()
    return [name for name in weights if not torch.equal(weights[name], others[name])]


# What an export has beside the weights of a checkpoint: it is learned when training is over.
LEARNED_LAST = ["attribute_vectors"]


@pytest.fixture(scope="module", autouse=True)
def one_cpu_thread() -> Iterator[None]:
    """More would wait for one another on models so small, and a GPU need not repeat its bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setattr(train_accelerate, "use_all_cores", lambda accelerator: None)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def demo_grooves(tmp_path_factory) -> Path:
    return write_demo_grooves(tmp_path_factory.mktemp("data") / "demo_grooves")


@pytest.fixture(scope="module")
def train(demo_grooves) -> Callable[..., Path]:
    """Runs the script in this process on a tiny model; an epoch has seven steps."""

    def train(output_dir: Path, **arguments) -> Path:
        data = {"data": "groove", "data_dir": demo_grooves, "output_dir": output_dir}
        handlers = {number: signal.getsignal(number) for number in train_accelerate.INTERRUPTIONS}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(SCRIPT), *as_argv(TINY | data | arguments)])
            try:
                train_accelerate.main()
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return output_dir

    return train


# --- Arguments ------------------------------------------------------------------------------------


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
    path = recipe("input_transform: remove_drums\nremoved_drums: [2, 3]\nbars: 2")
    assert parse(config=path).architecture.removed_drums == [2, 3]
    argv = ["--config", str(path), "--removed_drums", "4", "5", "6"]
    assert train_accelerate.parse_arguments(argv).architecture.removed_drums == [4, 5, 6]


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
    with pytest.raises(FileNotFoundError, match="recipe.yaml"):
        parse(config=tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hop_bars", 0),
        ("num_proc", 0),
        ("num_workers", -1),
        ("max_steps", 0),
        ("num_epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", "nan"),
        ("learning_rate", "inf"),
        ("min_learning_rate", -1e-9),
        ("min_learning_rate", "nan"),
        ("min_learning_rate", 0.1),  # more than the learning rate
        ("learning_rate_decay", 0.0),
        ("learning_rate_decay", 1.01),
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
        ("note_dropout", 1.5),
        ("sampling_rate", -1),
        ("free_bits", -1),
        ("max_beta", -1),
        ("beta_rate", 1),
    ],
)
def test_an_impossible_architecture_is_refused_by_name(name, value):
    with pytest.raises(StrictDataclassError, match=f"{name}: found {value}"):
        parse(**{name: value})


def test_drums_to_remove_that_do_not_exist_are_refused_by_name(recipe):
    path = recipe("input_transform: remove_drums\nremoved_drums: [2, 9]")
    with pytest.raises(StrictDataclassError, match=r"removed_drums: found \[2, 9\], expected"):
        parse(config=path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bars", "four"),
        ("learning_rate", "fast"),
        ("decoder", "deep"),
        ("data", "drums"),
        ("output", "sound"),
        ("input_transform", "reverse"),
        ("removed_drums", "snare"),
        ("sampling_method", "slow"),
    ],
)
def test_a_word_that_makes_no_sense_is_refused_by_name(name, value, capsys):
    with pytest.raises(SystemExit):
        parse(**{name: value})
    assert f"argument --{name}" in capsys.readouterr().err


def test_data_dir_goes_with_the_data():
    with pytest.raises(ValueError, match="^data_dir: found none, expected the folder"):
        parse(data="midi_folder")
    with pytest.raises(ValueError, match="^data_dir: found my_drums, expected none"):
        parse(data="demo", data_dir="my_drums")


# What a recipe trains, and how one differs from it that is named otherwise.
MOST = {
    "data": "groove",
    "bars": 4,
    "decoder": "hierarchical",
    "output": "categorical",
    "velocity_bins": 8,
    "timing_bins": 9,
    "input_transform": "none",
    "removed_drums": [2],
    "hits_as_controls": False,
}
INTENDED = {
    "add_hihat": {"input_transform": "remove_drums"},
    "groove_2bar_flat": {"decoder": "flat", "bars": 2},
    "groove_4bar": {},
    "groove_4bar_flat": {"decoder": "flat"},
    "groove_4bar_hits": {"velocity_bins": 0, "timing_bins": 0},
    "humanize": {"input_transform": "humanize", "hits_as_controls": True},
    "quickstart": {"data": "demo"},
    "tap_to_drums": {"input_transform": "tap"},
}


def test_there_are_no_other_recipes():
    assert {path.stem for path in RECIPES.iterdir()} == set(INTENDED)


@pytest.mark.parametrize("name", INTENDED)
def test_a_recipe_trains_the_model_that_its_name_says(name):
    arguments = parse(config=RECIPES / f"{name}.yaml")
    settings = asdict(arguments.data) | asdict(arguments.architecture)
    assert {key: settings[key] for key in MOST} == MOST | INTENDED[name]
    assert arguments.training.output_dir == f"outputs/{name}"


def test_the_architecture_is_all_of_the_config_but_the_kit():
    names = set(inspect.get_annotations(MusicVAEConfig)) - {"num_drums"}
    defaults = {name: getattr(MusicVAEConfig(), name) for name in names}
    defaults["removed_drums"] = list(defaults["removed_drums"])
    assert asdict(parse().architecture) == defaults


def test_help_has_one_line_on_every_argument(capsys):
    with pytest.raises(SystemExit, match="^0$"):
        train_accelerate.parse_arguments(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    arguments = parse()
    for group in (arguments.data, arguments.architecture, arguments.training):
        for field in fields(group):
            assert f"{field.metadata['help']} (default:" in shown, field.name


# --- Schedule and batches -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.001),
        (1, 0.000999901),
        (1000, 0.000905784564622960792),
        (10_000, 0.000374182435968600625),
        (1_000_000, 0.00001),
    ],
)
def test_the_learning_rate_decays_as_in_the_original(step, expected):
    learning_rate = train_accelerate.learning_rate(parse().training, step)
    assert learning_rate == pytest.approx(expected, rel=1e-12)


@pytest.fixture
def loaders(demo_grooves) -> tuple[DataLoader, DataLoader]:
    """Of the demo grooves, as accelerate prepares them."""
    config = DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True, data_seed=0)
    accelerator = Accelerator(dataloader_config=config)
    arguments = parse(data="groove", data_dir=demo_grooves, hop_bars=2)
    train_loader, eval_loader, _ = train_accelerate.load_data(accelerator, arguments)
    return accelerator.prepare(train_loader, eval_loader)


def windows(batch: dict[str, torch.Tensor]) -> list[bytes]:
    return [timing.numpy().tobytes() for timing in batch["timing"].cpu()]  # no two are alike


def batches(loader: DataLoader, step: int, count: int) -> list[list[bytes]]:
    return [windows(b) for b in islice(train_accelerate.endless_batches(loader, step), count)]


def test_a_batch_is_what_the_dataset_holds(loaders):
    _, eval_loader = loaders
    batch, first = next(iter(eval_loader)), eval_loader.dataset[0]
    dtypes = {name: column.dtype for name, column in batch.items()}
    assert dtypes == {
        "piano_roll": torch.uint8,
        "timing": torch.float32,
        "bpm": torch.float32,
    }
    for name, column in batch.items():
        assert np.array_equal(column[0].cpu(), first[name])


def test_training_windows_start_every_hop_and_validation_windows_do_not_overlap(loaders):
    train_starts, eval_starts = (
        Counter(loader.dataset.with_format(None)["start_bar"]) for loader in loaders
    )
    assert set(train_starts) == set(range(0, max(train_starts) + 1, 2))
    assert set(eval_starts) == set(range(0, max(eval_starts) + 1, 4))


def test_an_epoch_sees_every_window_once_and_the_next_in_another_order(loaders):
    loader, _ = loaders
    every = train_accelerate.collate(list(loader.dataset))
    both = batches(loader, 0, 2 * len(loader))
    epoch, next_epoch = sum(both[: len(loader)], []), sum(both[len(loader) :], [])
    assert len(set(epoch)) == len(loader.dataset)
    assert sorted(epoch) == sorted(next_epoch) == sorted(windows(every))
    assert epoch != next_epoch


@pytest.mark.parametrize("epochs", [0, 1, 2])
@pytest.mark.parametrize("offset", [0, 1, -1])
def test_batches_from_a_step_on_are_those_of_a_run_that_never_stopped(loaders, epochs, offset):
    loader, _ = loaders
    step = max(epochs * len(loader) + offset, 0)
    uninterrupted = batches(loader, 0, 3 * len(loader))
    assert batches(loader, step, 3 * len(loader) - step) == uninterrupted[step:]


@pytest.fixture
def random_drums() -> dict[str, torch.Tensor]:
    """A batch of 200 windows; only hits have a timing."""
    torch.manual_seed(1)
    hits = torch.rand(200, 9, 64) < 0.3
    rolls = (torch.randint(1, 128, hits.shape) * hits).to(torch.uint8)
    timing = (torch.rand(hits.shape) - 0.5) * hits
    return {"piano_roll": rolls, "timing": timing, "bpm": torch.full((200,), 120.0)}


def test_drums_are_trained_on_as_they_were_played_unless_augmentation_is_asked_for(random_drums):
    piano_roll, timing = train_accelerate.augment(random_drums, parse().data)
    assert piano_roll is random_drums["piano_roll"]
    assert timing is random_drums["timing"]


def test_hit_dropout_takes_hits_and_leaves_the_others_as_they_are(random_drums):
    before, timing_before = random_drums["piano_roll"], random_drums["timing"]
    piano_roll, timing = train_accelerate.augment(random_drums, parse(hit_dropout=1.0).data)
    kept = piano_roll > 0
    assert torch.equal(piano_roll, before * kept)
    assert torch.equal(timing, timing_before * kept)
    soft, loud = ((before > low) & (before < low + 32) for low in (0, 95))
    # A sequence's chance is 1/2 on average; a hit's is that times 1 - velocity / 127, at least 1/5.
    assert (1 - kept[soft].float().mean()).item() == pytest.approx(0.5 * (1 - 16 / 127), abs=0.05)
    assert (1 - kept[loud].float().mean()).item() == pytest.approx(0.5 * 0.2, abs=0.05)


def test_velocity_scaling_makes_whole_sequences_louder_or_softer(random_drums):
    before = random_drums["piano_roll"]
    piano_roll, timing = train_accelerate.augment(random_drums, parse(velocity_scaling=0.25).data)
    assert torch.equal(piano_roll > 0, before > 0)
    assert torch.equal(timing, random_drums["timing"])
    factors = []
    for old, new in zip(before.double(), piano_roll.double(), strict=True):
        free = (old > 0) & (new < 127)  # not cut off
        factor = (new[free].sum() / old[free].sum()).item()
        assert (new - old * factor)[free].abs().max() < 1  # one factor, but for rounding
        factors.append(factor)
    assert 0.79 < min(factors) < 0.82
    assert 1.22 < max(factors) < 1.26


@pytest.mark.parametrize(
    ("data", "pitch_map"), [("groove", "roland_td11"), ("midi_folder", "general_midi")]
)
def test_the_processor_reads_midi_as_the_data_was_read(
    data, pitch_map, demo_grooves, write_drums, tmp_path
):
    for seed in range(3):
        write_drums(tmp_path / f"{seed}.mid", bars=2, seed=seed)
    data_dir = demo_grooves if data == "groove" else tmp_path
    arguments = parse(data=data, data_dir=data_dir, bars=2, steps_per_bar=8)
    _, eval_loader, processor = train_accelerate.load_data(Accelerator(), arguments)
    path = data_dir / eval_loader.dataset.with_format(None)[0]["midi_filename"]
    assert processor.pitch_map == pitch_map
    assert np.array_equal(processor(path).piano_roll[0], eval_loader.dataset[0]["piano_roll"])


# --- Evaluation -----------------------------------------------------------------------------------


def tiny_model(**settings) -> MusicVAEModel:
    sizes = {name: size for name, size in TINY.items() if name.endswith("size")}
    return MusicVAEModel(MusicVAEConfig(**sizes | settings))


def loader_of_drums() -> DataLoader:
    """Five windows of random drums at five tempos, two in a batch."""
    generator = torch.Generator().manual_seed(1)
    hits = torch.rand(5, 9, 64, generator=generator) < 0.1
    rolls = (torch.randint(1, 128, hits.shape, generator=generator) * hits).to(torch.uint8)
    timing = (torch.rand(hits.shape, generator=generator) - 0.5) * hits
    columns = {"piano_roll": rolls, "timing": timing, "bpm": torch.linspace(60, 180, 5)}
    examples = [
        dict(zip(columns, example, strict=True)) for example in zip(*columns.values(), strict=True)
    ]
    return DataLoader(examples, 2)


def test_evaluation_of_a_model_that_knows_nothing():
    model, loader = tiny_model(max_beta=0.5, free_bits=1.0), loader_of_drums()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    metrics = train_accelerate.evaluate(Accelerator(), model, loader, seed=0)
    rolls = torch.stack([example["piano_roll"] for example in loader.dataset])
    num_hits = (rolls > 0).sum().item() / len(rolls)
    losses = {
        "hits_loss": 64 * math.log(512),
        "velocity_loss": num_hits * math.log(8),
        "timing_loss": num_hits * math.log(9),
    }
    std = math.log(2)  # the softplus of 0
    kl = 8 * (std**2 - 1 - 2 * math.log(std)) / 2
    expected = losses | {
        "reconstruction_loss": sum(losses.values()),
        "kl_bits": kl / math.log(2),
        "elbo": -sum(losses.values()) - kl,
        "loss": sum(losses.values()) + 0.5 * (kl - math.log(2)),
        "pattern_accuracy_teacher_forced": (rolls == 0).all(1).float().mean().item(),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert metrics["pattern_accuracy_sampled"] < 0.05
    # Where it does what is most likely it is silent, so that no hit is in both.
    silent = {"velocity_mae_teacher_forced", "timing_mae_ms_teacher_forced"}
    assert set(metrics) == METRICS - silent


@pytest.fixture
def wild_model() -> MusicVAEModel:
    """A model to which no two sequences are alike."""
    torch.manual_seed(0)
    model = tiny_model(max_beta=0.5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


def errors_of_common_hits(
    piano_roll: torch.Tensor, timing: torch.Tensor, truth: dict[str, torch.Tensor]
) -> list[tuple[float, float]]:
    """Of each hit of one window that is in both: in velocity, and in ms at the window's tempo."""
    step_seconds = 60 / truth["bpm"].item() / 4
    errors = []
    for drum, step in (truth["piano_roll"] > 0).nonzero().tolist():
        if piano_roll[drum, step] > 0:
            velocities = (roll[drum, step].item() for roll in (piano_roll, truth["piano_roll"]))
            onsets = (times[drum, step].item() for times in (timing, truth["timing"]))
            (played, true), (at, truly_at) = velocities, onsets
            errors.append((abs(played - true), 1000 * step_seconds * abs(at - truly_at)))
    return errors


def test_evaluation_is_the_mean_over_all_sequences_and_of_errors_over_all_hits(wild_model):
    loader = loader_of_drums()
    generator = torch.Generator().manual_seed(7)
    rows, errors = [], {way: [] for way in WAYS}
    for batch in loader:
        posterior = wild_model.encode(batch["piano_roll"], batch["timing"])
        noise = torch.randn(posterior.mean.shape, generator=generator)
        latents = posterior.mean + posterior.std * noise
        output = wild_model(batch["piano_roll"], batch["timing"], latents=latents)
        drums = {
            "teacher_forced": wild_model.most_likely(output.logits),
            "sampled": wild_model.decode(latents, 1.0, generator),
        }
        logits = output.logits[..., :512]
        for i, roll in enumerate(batch["piano_roll"]):
            truth = {name: column[i] for name, column in batch.items()}
            patterns = (2 ** torch.arange(9)) @ (roll > 0).long()
            likelihoods = logits[i].log_softmax(-1)[torch.arange(64), patterns]
            prior = Normal(0.0, 1.0)
            kl = kl_divergence(Normal(posterior.mean[i], posterior.std[i]), prior).sum()
            forced = (logits[i].argmax(-1) == patterns).float().mean()
            sampled = ((drums["sampled"].piano_roll[i] > 0) == (roll > 0)).all(0).float().mean()
            losses = (-likelihoods.sum(), output.velocity_loss[i], output.timing_loss[i])
            rows.append(torch.stack([*losses, kl, forced, sampled]))
            for way, made in drums.items():
                errors[way] += errors_of_common_hits(made.piano_roll[i], made.timing[i], truth)
    hits, velocity, timing, kl, forced, sampled = torch.stack(rows).T
    reconstruction_loss = hits + velocity + timing
    free = kl.median().item()  # within which some sequences stay, and some do not
    wild_model.config.free_bits = free / math.log(2)
    expected = {
        "loss": reconstruction_loss.mean() + 0.5 * (kl - free).clamp(min=0).mean(),
        "elbo": -(reconstruction_loss + kl).mean(),
        "reconstruction_loss": reconstruction_loss.mean(),
        "hits_loss": hits.mean(),
        "velocity_loss": velocity.mean(),
        "timing_loss": timing.mean(),
        "kl_bits": kl.mean() / math.log(2),
        "pattern_accuracy_teacher_forced": forced.mean(),
        "pattern_accuracy_sampled": sampled.mean(),
    }
    for way in WAYS:
        means = torch.tensor(errors[way]).mean(0)
        expected[f"velocity_mae_{way}"], expected[f"timing_mae_ms_{way}"] = means
    metrics = train_accelerate.evaluate(Accelerator(), wild_model, loader, seed=7)
    assert metrics == pytest.approx({name: value.item() for name, value in expected.items()})


@pytest.mark.parametrize(
    "settings",
    [{"velocity_bins": 0, "timing_bins": 0}, {"output": "nade"}],
    ids=["categorical", "nade"],
)
def test_a_model_of_hits_alone_is_measured_by_them(settings):
    metrics = train_accelerate.evaluate(Accelerator(), tiny_model(**settings), loader_of_drums(), 0)
    assert set(metrics) == HITS_METRICS


def test_a_model_that_is_told_the_hits_has_them_right():
    model = tiny_model(hits_as_controls=True)
    metrics = train_accelerate.evaluate(Accelerator(), model, loader_of_drums(), seed=0)
    assert set(metrics) == METRICS - {"hits_loss"}
    assert [metrics[f"pattern_accuracy_{way}"] for way in WAYS] == [1, 1]


def test_evaluation_is_deterministic_and_leaves_training_as_it_was(wild_model, loaders):
    _, eval_loader = loaders
    accelerator, random_state = Accelerator(), torch.get_rng_state()
    first, second = (
        train_accelerate.evaluate(accelerator, wild_model, eval_loader, seed=0) for _ in range(2)
    )
    assert first == second
    assert torch.equal(torch.get_rng_state(), random_state)
    assert wild_model.training


# --- Whole runs -----------------------------------------------------------------------------------

RUN = {
    "max_steps": 10,
    "eval_steps": 4,
    "save_steps": 1000,
    "free_bits": 0,
    "max_beta": 1,
    "beta_rate": 0.9,
}


@pytest.fixture(scope="module")
def uninterrupted(train, tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "uninterrupted", **RUN)


def assert_ends_like(output_dir: Path, other: Path) -> None:
    """Both runs have the same weights after their last step, bit for bit."""
    last, last_of_other = (train_accelerate.checkpoints(path)[-1] for path in (output_dir, other))
    assert last.name == last_of_other.name
    assert differing_weights(last, last_of_other) == []


def test_the_weight_of_the_kl_divergence_is_annealed(uninterrupted):
    values = {name: by_step[10] for name, by_step in scalars(uninterrupted).items()}
    kl = values["train/kl_bits"] * math.log(2)
    beta = 1 - 0.9**9  # the tenth step is number 9
    loss = values["train/reconstruction_loss"] + beta * kl
    assert values["train/loss"] == pytest.approx(loss, rel=1e-6)


def test_the_optimiser_follows_the_schedule(uninterrupted):
    state = torch.load(uninterrupted / "checkpoints/checkpoint-10/optimizer.bin")
    expected = train_accelerate.learning_rate(parse().training, 9)
    assert [group["lr"] for group in state["param_groups"]] == [expected]


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_workers": 1}, {"eval_steps": 3}],
    ids=["again", "with a worker", "evaluated at other steps"],
)
def test_the_same_seed_gives_the_same_weights(settings, train, uninterrupted, tmp_path):
    assert_ends_like(train(tmp_path, **RUN | settings), uninterrupted)


def test_another_seed_gives_another_model(train, uninterrupted, tmp_path):
    train(tmp_path, **RUN, seed=1)
    assert best_checkpoint(tmp_path)[1] != best_checkpoint(uninterrupted)[1]


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(train, uninterrupted, tmp_path):
    train(tmp_path, **RUN | {"max_steps": 9})
    train(tmp_path, **RUN, resume_from_checkpoint="latest")
    assert_ends_like(tmp_path, uninterrupted)


def test_so_does_one_with_everything_random(train, uninterrupted, tmp_path):
    run = RUN | {
        "hit_dropout": 0.5,
        "velocity_scaling": 0.5,
        "note_dropout": 0.5,
        "sampling_schedule": "inverse_sigmoid",
        "sampling_rate": 5,
    }
    whole, stopped = (tmp_path / name for name in ("whole", "stopped"))
    train(whole, **run)
    train(stopped, **run | {"max_steps": 9})
    train(stopped, **run, resume_from_checkpoint="latest")
    assert_ends_like(stopped, whole)
    assert best_checkpoint(whole)[1] != best_checkpoint(uninterrupted)[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"hit_dropout": 0.5},
        {"velocity_scaling": 0.5},
        {"note_dropout": 0.5},
        {"sampling_rate": 0.5, "sampling_method": "parallel"},
        {"sampling_rate": 0.5, "sampling_method": "exact"},
    ],
    ids=["hit dropout", "velocity scaling", "note dropout", "parallel draws", "exact draws"],
)
def test_what_is_asked_for_changes_training(settings, train, uninterrupted, tmp_path):
    train(tmp_path, **RUN, **settings)
    assert best_checkpoint(tmp_path)[1] != best_checkpoint(uninterrupted)[1]


@pytest.fixture
def interrupt(monkeypatch) -> Callable[[int, int], None]:
    """Sends this process a signal during a step, counted from 1."""
    original = train_accelerate.learning_rate

    def interrupt(step: int, number: int) -> None:
        def learning_rate(training: train_accelerate.TrainingArguments, steps_done: int) -> float:
            if steps_done == step - 1:
                os.kill(os.getpid(), number)
            return original(training, steps_done)

        monkeypatch.setattr(train_accelerate, "learning_rate", learning_rate)

    return interrupt


@pytest.mark.parametrize("number", train_accelerate.INTERRUPTIONS, ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_run_saves_says_how_to_go_on_and_does(
    number, interrupt, train, uninterrupted, tmp_path, capsys
):
    interrupt(9, number)
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path, **RUN)
    assert stopped.value.code == 128 + number
    assert f"--resume_from_checkpoint latest --output_dir {tmp_path}" in capsys.readouterr().out
    assert checkpoint_names(tmp_path) == {"checkpoint-8", "checkpoint-9"}
    assert not (tmp_path / WEIGHTS).exists()
    train(tmp_path, **RUN, resume_from_checkpoint="latest")
    assert_ends_like(tmp_path, uninterrupted)


def test_a_run_interrupted_in_its_last_step_is_done(interrupt, train, tmp_path):
    interrupt(2, signal.SIGINT)
    train(tmp_path, max_steps=2)
    assert (tmp_path / WEIGHTS).is_file()


def test_the_best_and_the_last_checkpoint_stay(tmp_path):
    accelerator, training = Accelerator(), parse(output_dir=tmp_path).training
    accelerator.prepare(tiny_model())
    for step, best_step in [(8, 8), (9, 9), (10, 9), (11, 9)]:
        progress = train_accelerate.Progress(step=step, best_step=best_step)
        train_accelerate.save_checkpoint(accelerator, training, progress)
    assert checkpoint_names(tmp_path) == {"checkpoint-9", "checkpoint-11"}
    assert [path.name for path in train_accelerate.checkpoints(tmp_path)] == [
        "checkpoint-9",
        "checkpoint-11",
    ]


def test_the_exported_model_is_the_best_one(train, tmp_path):
    # Beta is near zero while training, so at first the KL divergence grows, the loss with it.
    run = {"max_steps": 20, "eval_steps": 10, "learning_rate": 0.05}
    train(tmp_path, **run, free_bits=0, max_beta=1000, beta_rate=0.99999999)
    best, metrics = best_checkpoint(tmp_path)
    assert checkpoint_names(tmp_path) == {"checkpoint-10", "checkpoint-20"}
    assert best.name == "checkpoint-10"
    assert min(scalars(tmp_path)["validation/loss"].values()) == pytest.approx(metrics["loss"])
    assert differing_weights(tmp_path, best) == LEARNED_LAST
    card = (tmp_path / "README.md").read_text()
    assert [name for name, value in metrics.items() if f"{value:.4g}" not in card] == []


# What the snippet of a model's card does.
VERBS = {
    "groove_4bar_hits": "model.sample(1, temperature=1.0",
    "humanize": "model.humanize(windows.piano_roll)",
    "tap_to_drums": "model.tap_to_drums(windows.piano_roll, windows.timing)",
    "add_hihat": "model.add_drums(windows.piano_roll, windows.timing)",
    "hits as controls": "model.sample(len(windows.piano_roll), score=windows.piano_roll)",
}


@pytest.fixture(scope="module", params=VERBS)
def trained(request, train, tmp_path_factory) -> tuple[str, Path]:
    """What a few steps of a recipe leave."""
    if request.param == "hits as controls":
        settings = {"config": RECIPES / "groove_4bar.yaml", "hits_as_controls": True}
    else:
        settings = {"config": RECIPES / f"{request.param}.yaml"}
    output_dir = tmp_path_factory.mktemp("trained") / "model"
    return request.param, train(output_dir, **settings, max_steps=4)


def test_a_recipe_leaves_a_model_that_loads(trained):
    name, output_dir = trained
    config = MusicVAEModel.from_pretrained(output_dir).config
    intended = MOST | INTENDED.get(name, {"hits_as_controls": True})
    names = intended.keys() - {"data"}
    assert {key: getattr(config, key) for key in names} == {key: intended[key] for key in names}


def test_it_leaves_drums_that_are_not_silent(trained):
    _, output_dir = trained
    samples = sorted((output_dir / "samples").iterdir())
    assert [path.name for path in samples] == ["sample-1.mid", "sample-2.mid"]
    assert all(pretty_midi.PrettyMIDI(str(path)).instruments[0].notes for path in samples)


def test_latents_can_be_given_more_of_an_attribute(trained):
    _, output_dir = trained
    model = MusicVAEModel.from_pretrained(output_dir)
    latents = torch.zeros(1, model.config.latent_size)
    assert [name for name in ATTRIBUTES if not model.add_attribute(latents, name).any()] == []


def test_the_snippet_of_the_card_makes_midi(trained, write_drums, tmp_path, monkeypatch):
    name, output_dir = trained
    card = (output_dir / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert "{{" not in card and "{%" not in card
    assert VERBS[name] in code
    monkeypatch.chdir(tmp_path)
    for path in ("yours.mid", "hits.mid"):
        write_drums(tmp_path / path, bars=6)
    exec(code.replace("PATH", str(output_dir)), {})
    assert pretty_midi.PrettyMIDI("groove.mid").instruments[0].notes


# --- Through the launcher -------------------------------------------------------------------------


# Threads that wait leave their core to others; on a busy machine they would hold each other up.
PATIENT_THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@contextmanager
def launched(output_dir: Path, *launcher_argv: str, **arguments) -> Iterator[subprocess.Popen]:
    """The script under `accelerate launch`, in a group of processes of its own."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *launcher_argv, str(SCRIPT)]
    command += as_argv({"config": RECIPES / "quickstart.yaml", "output_dir": output_dir})
    process = subprocess.Popen(
        [*command, *as_argv(TINY | arguments)],
        cwd=output_dir.parent,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | PATIENT_THREADS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    kill = threading.Timer(120, os.killpg, (process.pid, signal.SIGKILL))
    kill.start()
    with process:
        try:
            yield process
        finally:
            kill.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory) -> tuple[Path, str]:
    """What a short quickstart leaves, and what it prints."""
    output_dir = tmp_path_factory.mktemp("launched") / "quickstart"
    settings = {"max_steps": 30, "eval_steps": 10, "learning_rate": 0.01}
    with launched(output_dir, **settings) as process:
        printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return output_dir, printed


def test_the_validation_loss_falls(quickstart):
    _, printed = quickstart
    shown = re.findall(r"step (\d+): validation loss ([\d.]+), elbo", printed)
    steps, losses = zip(*shown, strict=True)
    assert steps == ("10", "20", "30")
    assert float(losses[0]) > float(losses[1]) > float(losses[2])


def test_a_run_leaves_all_that_belongs_to_a_model_and_nothing_else(quickstart):
    output_dir, _ = quickstart
    names = {path.name for path in output_dir.iterdir() if path.suffix != ".py"}
    assert names == {
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "README.md",
        "samples",
        "samples.png",
        "logs",
        "checkpoints",
        "demo_grooves",
    }
    assert checkpoint_names(output_dir) == {"checkpoint-30"}


def test_the_samples_are_drums_of_up_to_four_bars(quickstart):
    output_dir, _ = quickstart
    processor = MusicVAEProcessor.from_pretrained(output_dir)
    samples = sorted((output_dir / "samples").iterdir())
    assert [path.name for path in samples] == ["sample-1.mid", "sample-2.mid"]
    for path in samples:
        (instrument,) = pretty_midi.PrettyMIDI(str(path)).instruments
        assert instrument.is_drum
        assert processor.read(path).piano_roll.shape[1] <= 64


def test_the_picture_shows_something(quickstart):
    output_dir, _ = quickstart
    pixels = image.imread(output_dir / "samples.png")
    assert min(pixels.shape[:2]) > 100
    assert pixels.std() > 0.01


def test_tensorboard_shows_training_and_validation(quickstart):
    output_dir, printed = quickstart
    shown = scalars(output_dir)
    training = {"loss", "reconstruction_loss", "kl_bits", "sequences_per_second"}
    training |= {"hits_loss", "velocity_loss", "timing_loss"}
    expected = {f"train/{name}" for name in training} | {f"validation/{name}" for name in METRICS}
    # Drums that are silent wherever that is most likely, as at first, have no hit to be wrong.
    perhaps = {
        "validation/velocity_mae_teacher_forced",
        "validation/timing_mae_ms_teacher_forced",
    }
    assert set(shown) | perhaps == expected
    assert all(list(shown[name]) == [10, 20, 30] for name in expected - perhaps)
    for step, loss in shown["validation/loss"].items():
        assert f"step {step}: validation loss {loss:.4g}, " in printed


def test_the_card_is_valid(quickstart):
    output_dir, _ = quickstart
    card = ModelCard.load(output_dir / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    assert "{{" not in card.text


# What someone runs who has the libraries and the folder, and nothing of ours.
STRANGER = """
import sys


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("modeling_musicvae", "processing", "train_accelerate"):
            raise ImportError(f"{name} is not installed")


sys.meta_path.insert(0, NotInstalled())

import torch
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
drums = model.sample(1, generator=torch.Generator().manual_seed(0))
processor.decode(drums.piano_roll[0], drums.timing[0], bpm=100).write("groove.mid")
"""


def test_the_folder_works_where_nothing_of_ours_is_installed(quickstart, tmp_path):
    output_dir, _ = quickstart
    command = [sys.executable, "-I", "-c", STRANGER, str(output_dir)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    drums = MusicVAEModel.from_pretrained(output_dir).sample(
        1, generator=torch.Generator().manual_seed(0)
    )
    groove = pretty_midi.PrettyMIDI(str(tmp_path / "groove.mid"))
    assert len(groove.instruments[0].notes) == (drums.piano_roll > 0).sum()
    assert groove.get_tempo_changes()[1] == pytest.approx([100])
    assert 4 * 4 * 60 / 100 * 0.75 < groove.get_end_time() <= 4 * 4 * 60 / 100


TWO_PROCESSES = [
    "--multi_gpu",
    "--num_processes=2",
    "--num_machines=1",
    "--mixed_precision=no",
    "--dynamo_backend=no",
]


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    output_dir = tmp_path / "two"
    for settings in {"max_steps": 20}, {"max_steps": 30, "resume_from_checkpoint": "latest"}:
        settings |= {"eval_steps": 10, "learning_rate": 0.01}
        with launched(output_dir, *TWO_PROCESSES, **settings) as process:
            printed, _ = process.communicate()
        assert process.returncode == 0, printed
        assert "2 process(es) on cpu" in printed
    losses = scalars(output_dir)["validation/loss"]
    assert losses[10] > losses[20] > losses[30]
    best, _ = best_checkpoint(output_dir)
    assert differing_weights(output_dir, best) == LEARNED_LAST


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "launcher_argv", "num_workers"),
    [
        (signal.SIGINT, [], 0),
        (signal.SIGINT, [], 1),
        (signal.SIGTERM, [], 1),
        (signal.SIGTERM, TWO_PROCESSES, 1),
    ],
    ids=["SIGINT", "SIGINT with a worker", "SIGTERM with a worker", "SIGTERM to two processes"],
)
def test_a_signal_to_all_processes_leaves_a_whole_checkpoint(
    number, launcher_argv, num_workers, tmp_path
):
    output_dir = tmp_path / "stopped"
    endless = {"max_steps": 1_000_000, "eval_steps": 3, "num_workers": num_workers}
    with launched(output_dir, *launcher_argv, **endless) as process:
        lines = iter(process.stdout)
        assert any(line.startswith("step 3: validation") for line in lines)
        os.killpg(process.pid, number)
        rest = "".join(lines)  # until the last process has ended
    assert process.returncode != 0
    assert "Interrupted and saved" in rest
    checkpoint = train_accelerate.checkpoints(output_dir)[-1]
    step = int(checkpoint.name.split("-")[1])
    further = {"max_steps": step + 1, "resume_from_checkpoint": "latest"}
    with launched(output_dir, *launcher_argv, **further) as process:
        printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert f"to step {step + 1} from {step}" in printed


@pytest.mark.slow
def test_training_in_bfloat16(tmp_path):
    output_dir = tmp_path / "bf16"
    settings = {"max_steps": 30, "eval_steps": 10, "learning_rate": 0.01}
    with launched(output_dir, mixed_precision="bf16", **settings) as process:
        printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert "mixed precision bf16" in printed
    losses = scalars(output_dir)["validation/loss"]
    assert losses[10] > losses[20] > losses[30]
    exported = load_file(output_dir / WEIGHTS)
    assert {tensor.dtype for tensor in exported.values()} == {torch.float32}


# --- What is refused ------------------------------------------------------------------------------


def test_an_output_dir_that_is_a_file(train, tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=str(path)):
        train(path)
    with pytest.raises(NotADirectoryError, match=str(path)):
        train(path / "below")
    assert path.read_text() == "mine"


def test_an_output_dir_that_holds_another_run(train, uninterrupted):
    before = contents(uninterrupted)
    with pytest.raises(FileExistsError, match=f"{uninterrupted} holds checkpoints"):
        train(uninterrupted)
    assert contents(uninterrupted) == before


@pytest.mark.parametrize("name", ["latest", "nowhere/checkpoint-10"])
def test_going_on_from_a_checkpoint_that_is_not_there(name, train, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no checkpoint '{name}' in {tmp_path}"):
        train(tmp_path, resume_from_checkpoint=name)


def test_going_on_from_a_checkpoint_of_another_run(train, uninterrupted, tmp_path):
    other = uninterrupted / "checkpoints/checkpoint-10"
    with pytest.raises(FileNotFoundError, match=f"no checkpoint '{other}' in {tmp_path}"):
        train(tmp_path, max_steps=20, resume_from_checkpoint=other)


def test_going_on_to_a_step_that_is_over(train, uninterrupted):
    before = contents(uninterrupted)
    with pytest.raises(ValueError, match="^max_steps: found 10, expected more than the 10"):
        train(uninterrupted, **RUN, resume_from_checkpoint="latest")
    assert contents(uninterrupted).items() >= before.items()


@pytest.mark.parametrize("data", ["groove", "midi_folder"])
def test_a_data_dir_that_does_not_exist(data, train, tmp_path):
    with pytest.raises(DatasetFolderError, match=f"{tmp_path}/nowhere does not exist"):
        train(tmp_path / "output", data=data, data_dir=tmp_path / "nowhere")


def test_data_without_anything_to_validate_on(train, write_drums, tmp_path):
    write_drums(tmp_path / "data/only.mid")
    with pytest.raises(ValueError, match=f"{tmp_path}/data: found no window .*validation"):
        train(tmp_path / "output", data="midi_folder", data_dir=tmp_path / "data")


def test_training_that_diverges(train, tmp_path):
    with pytest.raises(FloatingPointError, match="^validation loss: found nan, expected"):
        train(tmp_path, max_steps=4, eval_steps=2, learning_rate=1e30)
    assert not (tmp_path / WEIGHTS).exists()
