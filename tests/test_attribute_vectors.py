"""Attribute vectors: what they do to the drums of a small trained model, and how they are kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from modeling_musicvae.drum_attributes import ATTRIBUTES, measure_attributes
from processing import GrooveMIDI
from processing.demo_grooves import write_demo_grooves

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module", autouse=True)
def one_cpu_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def drums(tmp_path_factory) -> tuple[torch.Tensor, torch.Tensor]:
    """Two bars each: all training windows of the demo grooves."""
    folder = write_demo_grooves(tmp_path_factory.mktemp("data") / "demo_grooves")
    grooves = GrooveMIDI("2bar", data_dir=folder, hop_bars=1)
    grooves.download_and_prepare()
    windows = grooves.as_dataset("train").with_format("numpy")[:]
    rolls, timing = (torch.from_numpy(windows[name]) for name in ("piano_roll", "timing"))
    return rolls.to(torch.uint8), timing


@pytest.fixture(scope="module")
def model(drums) -> MusicVAEModel:
    """A model that plays the demo grooves and uses its latents, with its attribute vectors."""
    torch.manual_seed(0)
    sizes = {"encoder_hidden_size": 64, "conductor_hidden_size": 64, "decoder_hidden_size": 64}
    layers = {"conductor_num_layers": 1, "decoder_num_layers": 1}
    model = MusicVAEModel(MusicVAEConfig(bars=2, latent_size=32, free_bits=16, **sizes, **layers))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    piano_roll, timing = drums
    for _ in range(600):
        batch = torch.randint(len(piano_roll), (32,))
        optimizer.zero_grad()
        model(piano_roll[batch], timing[batch]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval().fit_attribute_vectors([drums])
    return model


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_vector_moves_its_attribute(attribute, model):
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1000, model.config.latent_size, generator=generator)
    values = []
    for strength in (-2.0, 2.0):
        moved = model.add_attribute(latents, attribute, strength)
        made = model.decode(moved, generator=torch.Generator().manual_seed(2))
        measures = measure_attributes(made.piano_roll, made.timing, model.config.steps_per_bar)
        values.append(measures[:, list(ATTRIBUTES).index(attribute)])
    less, more = values
    standard_error = ((less.var() + more.var()) / len(latents)).sqrt()
    assert more.mean() - less.mean() > 4 * standard_error


@pytest.fixture
def fitted() -> MusicVAEModel:
    """An untrained model with vectors."""
    torch.manual_seed(0)
    sizes = {"encoder_hidden_size": 8, "conductor_hidden_size": 8, "decoder_hidden_size": 8}
    model = MusicVAEModel(MusicVAEConfig(latent_size=8, **sizes))
    made = model.sample(50)
    model.fit_attribute_vectors([(made.piano_roll, made.timing)])
    return model


def test_vectors_are_saved_and_loaded_bit_for_bit(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    vectors = MusicVAEModel.from_pretrained(tmp_path).attribute_vectors
    assert torch.equal(vectors, fitted.attribute_vectors)
    assert vectors.any(1).all()


def without_vectors(model: MusicVAEModel, folder: Path) -> MusicVAEModel:
    """The model, loaded from a checkpoint that knows nothing of attributes."""
    model.save_pretrained(folder)
    weights = load_file(folder / WEIGHTS)
    del weights["attribute_vectors"]
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    return MusicVAEModel.from_pretrained(folder)


def test_a_checkpoint_without_vectors_loads_with_zeros_and_refuses_attributes(fitted, tmp_path):
    model = without_vectors(fitted, tmp_path)
    assert not model.attribute_vectors.any()
    with pytest.raises(ValueError, match="^attribute: found no vector for 'swing', expected one"):
        model.add_attribute(torch.zeros(1, 8), "swing")


def test_vectors_can_be_fitted_to_a_loaded_checkpoint(fitted, tmp_path):
    model = without_vectors(fitted, tmp_path)
    made = model.sample(50, generator=torch.Generator().manual_seed(0))
    model.fit_attribute_vectors([(made.piano_roll, made.timing)])
    moved = model.add_attribute(torch.zeros(1, 8), "density", strength=-2.0)
    assert torch.equal(moved[0], -2 * model.attribute_vectors[0])


def test_an_unknown_attribute_is_refused_by_name(fitted):
    with pytest.raises(ValueError, match=r"^attribute: found 'loudness', expected one of \['d"):
        fitted.add_attribute(torch.zeros(1, 8), "loudness")
