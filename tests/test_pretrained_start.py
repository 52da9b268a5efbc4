"""Training from the weights of a trained model."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_runs import LEARNED_LAST, RUN, TINY, WEIGHTS, parse, tiny_model

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.pretrained_musicvae import PretrainedModelError
from musicvae.training.checkpoints import checkpoints

pytestmark = pytest.mark.usefixtures("one_cpu_thread")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a model to start from."""
    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("trained")
    tiny_model(decoder="flat", bars=2, max_beta=0.5, dropout=0.1).save_pretrained(folder)
    return folder


def test_the_first_step_starts_from_its_weights(train, trained, tmp_path):
    still = {"max_steps": 1, "learning_rate": 1e-9, "min_learning_rate": 0}
    train(tmp_path, pretrained_model=trained, **still)
    (checkpoint,) = checkpoints(tmp_path)
    expected = load_file(trained / WEIGHTS)
    for name, weights in load_file(checkpoint / WEIGHTS).items():
        if name not in LEARNED_LAST:
            torch.testing.assert_close(weights, expected[name], rtol=0, atol=1e-8)


def test_its_architecture_is_kept_but_for_what_is_given(trained):
    architecture = parse(pretrained_model=trained, max_beta=0.25).architecture
    assert (architecture.decoder, architecture.bars, architecture.dropout) == ("flat", 2, 0.1)
    assert architecture.latent_size == TINY["latent_size"]
    assert architecture.max_beta == 0.25


def test_a_recipe_may_name_it(trained, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"pretrained_model: {trained}\nmax_beta: 0.25\n")
    architecture = parse(config=recipe).architecture
    assert (architecture.decoder, architecture.max_beta) == ("flat", 0.25)


def test_half_precision_weights_are_trained_in_single_precision(train, trained, tmp_path):
    half = tmp_path / "half"
    MusicVAEModel.from_pretrained(trained, dtype=torch.float16).save_pretrained(half)
    train(tmp_path / "run", **RUN | {"max_steps": 1}, pretrained_model=half)
    weights = load_file(tmp_path / "run" / WEIGHTS)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_the_card_names_it(train, trained, tmp_path):
    train(tmp_path, **RUN | {"max_steps": 1}, pretrained_model=trained)
    assert f"Fine-tuned from {trained}" in (tmp_path / "README.md").read_text()


def test_another_size_is_refused(train, trained, tmp_path):
    with pytest.raises(PretrainedModelError, match="expected those of the config"):
        train(tmp_path, pretrained_model=trained, encoder_hidden_size=9)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(PretrainedModelError, match="found no config.json"):
        parse(pretrained_model=tmp_path)
