"""New grooves from a trained model: what the command writes, and what its arguments do to it."""

import inspect
import itertools
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import torch
from factories import seeded
from PIL import Image
from training_runs import tiny_model

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.drum_attributes import hihat_density, measure_attributes
from modeling_musicvae.latent_space import attribute_vectors
from musicvae.cli import main, verb_parser
from musicvae.drummer import Drummer, load
from musicvae.random_numbers import NOISE_STREAM, normals
from processing import MusicVAEProcessor

pytestmark = pytest.mark.usefixtures("one_cpu_thread")

READER = MusicVAEProcessor()
BARS, STEPS_PER_BAR = 4, 16  # of the models


def lively_model(**settings) -> MusicVAEModel:
    """A model that reads its latents at every step, and knows what they do to its drums."""
    torch.manual_seed(0)
    model = tiny_model(decoder="flat", **settings).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=1.0 if parameter.ndim > 1 else 0.2)
    latents = torch.randn(300, model.config.latent_size)
    drums = model.decode(latents)
    attributes = measure_attributes(drums.piano_roll, drums.timing, STEPS_PER_BAR)
    model.attribute_vectors.copy_(attribute_vectors([(latents, attributes)]))
    return model


@pytest.fixture(scope="module")
def model() -> MusicVAEModel:
    return lively_model()


def save(model: MusicVAEModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    MusicVAEProcessor(hop_bars=BARS).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    return save(model, tmp_path_factory.mktemp("models") / "lively")


@pytest.fixture
def sample(folder, tmp_path):
    """Runs the command on the model in `folder`, or another, and returns its output folder."""
    numbers = itertools.count()

    def run(words: str = "", model: Path = folder) -> Path:
        output_dir = tmp_path / f"drums-{next(numbers)}"
        main(["sample", f"--model={model}", f"--output_dir={output_dir}", *words.split()])
        return output_dir

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_groove_is_midi_and_sound_and_one_picture_has_them_all(sample, capfd):
    drums = sample("--num_samples 3 --bpm 90")
    names = {f"groove-{index}{suffix}" for index in (1, 2, 3) for suffix in (".mid", ".wav")}
    assert set(contents(drums)) == names | {"grooves.png"}
    printed, errors = capfd.readouterr()
    lines = [
        f"{drums}/groove-{index}.mid  4 bars, 90 bpm, "
        f"{np.count_nonzero(READER.read(drums / f'groove-{index}.mid').piano_roll)} hits"
        for index in (1, 2, 3)
    ]
    assert (printed.splitlines(), errors) == ([*lines, f"{drums}/grooves.png"], "")
    with Image.open(drums / "grooves.png") as picture:
        assert picture.size == (900, 3 * 230 + 34)


def test_more_grooves_than_can_be_looked_at_are_not_all_pictured(sample):
    drums = sample("--num_samples 9 --bars 1")
    assert len(contents(drums)) == 19
    with Image.open(drums / "grooves.png") as picture:
        assert picture.size == (900, 8 * 230 + 34)


def test_an_unknown_argument_of_load_is_refused(folder):
    with pytest.raises(
        TypeError, match="load: found pitchmap, expected pitch_map, channel, adjust"
    ):
        load(folder, pitchmap="roland_td11")


def test_defaults_in_python_are_those_of_the_command():
    parameters = inspect.signature(Drummer.sample).parameters
    arguments = vars(verb_parser("sample").parse_args([]))
    names = ("bars", "temperature", "seed", "style", "bpm")
    assert {name: parameters[name].default for name in names} == {
        name: arguments[name] for name in names
    }


def test_a_file_is_replaced_by_one_of_its_name_only_and_this_is_said(sample, tmp_path, capsys):
    (tmp_path / "drums-0").mkdir()
    for name in ("groove-1.mid", "groove-9.mid"):
        (tmp_path / "drums-0" / name).write_text("mine")
    found = contents(sample("--num_samples 1"))
    assert set(found) == {"groove-1.mid", "groove-1.wav", "groove-9.mid", "grooves.png"}
    assert found["groove-1.mid"].startswith(b"MThd")
    assert found["groove-9.mid"] == b"mine"
    groove, picture = capsys.readouterr().out.splitlines()
    assert groove.endswith(" hits, 1 file replaced")
    assert picture == f"{tmp_path}/drums-0/grooves.png"


def test_a_seed_decides_every_byte(sample):
    first, again, other = (contents(sample(f"--num_samples 2 --seed {seed}")) for seed in (0, 0, 2))
    assert first == again
    assert not set(first.values()) & set(other.values())
    assert len(set(first.values())) == len(first)


def test_each_groove_has_its_own_seed(sample):
    two, second = sample("--num_samples 2 --seed 6"), sample("--num_samples 1 --seed 7")
    assert contents(two)["groove-2.mid"] == contents(second)["groove-1.mid"]


def noise(model: MusicVAEModel, *seeds: int) -> torch.Tensor:
    """Of the latents that are drawn with seeds."""
    rows = [normals(seed, NOISE_STREAM, model.config.latent_size) for seed in seeds]
    return torch.from_numpy(np.stack(rows)).float()


@pytest.mark.parametrize(
    ("bars", "bpm"), [(1, 100), (3, 100), (4, 77.5), (5, 100), (24, 100)], ids=str
)
def test_a_groove_has_the_bars_and_the_tempo_that_are_asked_for(bars, bpm, sample):
    drums = sample(f"--num_samples 2 --bars {bars} --bpm {bpm}")
    for path in drums.glob("*.mid"):
        song = READER.read(path)
        assert song.num_bars == bars
        assert song.bpm[0] == pytest.approx(bpm, rel=1e-5)
        (drum_track,) = pretty_midi.PrettyMIDI(str(path)).instruments
        assert drum_track.is_drum


def test_at_temperature_0_latents_decide_everything(model, sample):
    drums = sample("--num_samples 2 --temperature 0 --seed 5")
    expected = model.decode(noise(model, 5, 6), temperature=0).piano_roll.numpy()
    for number, roll in enumerate(expected, 1):
        assert np.array_equal(READER.read(drums / f"groove-{number}.mid").piano_roll[0], roll)


def test_a_long_groove_changes_slowly():
    """Windows are more like the next ones than to those of another groove."""
    model = lively_model(lookback_bars=0)
    rolls = model.sample(20, 0, seeded(0), bars=5 * BARS).piano_roll.numpy()
    windows = np.stack(np.split(rolls > 0, 5, axis=-1))
    to_next = (windows[1:] != windows[:-1]).mean()
    to_others = (windows[1:] != np.roll(windows[:-1], 1, axis=1)).mean()
    assert to_next < 0.85 * to_others


def test_an_attribute_grows_and_shrinks(model):
    def mean_hihat_density(strength: float) -> float:
        drums = model.sample(100, generator=seeded(0), attributes={"hihat_density": strength})
        return hihat_density(**drums, steps_per_bar=STEPS_PER_BAR).mean().item()

    less, usual, more = (mean_hihat_density(strength) for strength in (-2, 0, 2))
    assert less + 1 < usual < more - 1


def test_several_attributes_are_all_added(model, sample):
    drums = sample("--num_samples 1 --temperature 0 --attributes density=1.5 swing=-1")
    latents = model.add_attribute(noise(model, 0), "density", 1.5)
    latents = model.add_attribute(latents, "swing", -1)
    (expected,) = model.decode(latents, temperature=0).piano_roll.numpy()
    assert np.array_equal(READER.read(drums / "groove-1.mid").piano_roll[0], expected)


BAD_WORDS = {
    "--num_samples 0": "num_samples: found 0, expected a whole number, 1 to 10000",
    "--bars 0": "bars: found 0, expected a whole number, 1 or more",
    "--seed -1": "seed: found -1, expected a whole number, 0 to 4294967295",
    "--bpm 501": "bpm: found 501.0, expected 20 to 500",
    "--temperature -1": "temperature: found -1, expected a number, 0 or more",
    "--attributes funk=1": "attribute: found 'funk', expected one of ['density', ",
    "--attributes density": "--attributes: found density, expected a name and a number",
    "--attributes swing=inf": "--attributes: found swing=inf, expected a name and a number",
    "--style funk": "style: found 'funk', expected none: this model knows no styles",
    "--device gpu": "device: found gpu, expected one of this machine: ",
}


def error_of(run, *arguments, capsys) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    code = stopped.value.code
    return code if isinstance(code, str) else capsys.readouterr().err


@pytest.mark.parametrize(("words", "error"), BAD_WORDS.items(), ids=BAD_WORDS)
def test_a_bad_argument_is_refused_and_nothing_written(words, error, sample, tmp_path, capsys):
    assert error in error_of(sample, words, capsys=capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_output_folder(sample, tmp_path, capsys):
    (tmp_path / "drums-0").write_text("mine")
    error = error_of(sample, capsys=capsys)
    assert f"output_dir: found the file {tmp_path}/drums-0, expected a folder" in error
    assert (tmp_path / "drums-0").read_text() == "mine"


def test_a_model_that_does_not_exist_is_refused(sample, tmp_path, capsys):
    error = error_of(sample, "", tmp_path / "nowhere", capsys=capsys)
    assert f"model: found no folder {tmp_path}/nowhere, expected that of a model" in error


def test_a_model_without_attribute_vectors_adds_none(sample, tmp_path, capsys):
    folder = save(tiny_model(), tmp_path / "model")
    error = error_of(sample, "--attributes swing=1", folder, capsys=capsys)
    assert "attribute: found no vector for 'swing', expected one learned by" in error


@pytest.mark.parametrize(
    "settings",
    [{"hits_as_controls": True}, {"input_transform": "tap", "input_as_controls": True}],
    ids=["hits", "taps"],
)
def test_a_model_that_is_conditioned_on_drums_is_refused(settings, sample, tmp_path, capsys):
    folder = save(tiny_model(**settings), tmp_path / "model")
    error = error_of(sample, "", folder, capsys=capsys)
    assert "model: found one that is conditioned on drums, expected an unconditional" in error
    assert "groove_4bar" in error


@pytest.mark.parametrize("input_transform", ["humanize", "tap", "remove_drums"])
def test_a_model_that_reads_other_drums_than_it_plays_plays_too(input_transform, sample, tmp_path):
    folder = save(lively_model(input_transform=input_transform), tmp_path / "model")
    assert len(contents(sample("--num_samples 1", folder))) == 3
