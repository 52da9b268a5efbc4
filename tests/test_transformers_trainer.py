"""The model in the hands of the transformers library: what a processor returns, and its Trainer."""

import numpy as np
import pytest
import torch
from factories import SIZES
from transformers import Trainer, TrainingArguments

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from musicvae.data.windows import load_windows
from processing import MusicVAEProcessor

pytestmark = pytest.mark.usefixtures("one_cpu_thread")


def model_of_nine_drums() -> MusicVAEModel:
    torch.manual_seed(0)
    sizes = {name: size for name, size in SIZES.items() if name.endswith("size")}
    return MusicVAEModel(MusicVAEConfig(bars=1, **sizes))


@pytest.fixture
def windows(write_drums, tmp_path) -> dict[str, torch.Tensor]:
    write_drums(tmp_path / "my.mid", bars=4)
    return MusicVAEProcessor(bars=1)(tmp_path / "my.mid", return_tensors="pt")


def test_a_model_takes_all_that_a_processor_returns(windows):
    model = model_of_nine_drums().eval()
    latents = torch.zeros(len(windows["piano_roll"]), model.config.latent_size)
    output = model(**windows, latents=latents)
    expected = model(windows["piano_roll"], windows["timing"], latents=latents)
    assert torch.equal(output.loss, expected.loss)


@pytest.mark.parametrize("velocity", [-1, 128])
def test_invalid_velocities_raise(windows, velocity):
    piano_roll = torch.as_tensor(windows["piano_roll"]).long()
    piano_roll[0, 0, 0] = velocity
    message = f"piano_roll: found velocity {velocity}, expected 0 to 127"
    with pytest.raises(ValueError, match=message):
        model_of_nine_drums()(piano_roll)


def test_a_trainer_trains_it(windows, tmp_path):
    arrays = {name: np.asarray(values) for name, values in windows.items()}
    rows = [{name: values[i] for name, values in arrays.items()} for i in range(4)]
    arguments = TrainingArguments(
        tmp_path / "run",
        max_steps=30,
        learning_rate=0.03,
        per_device_train_batch_size=4,
        label_names=["piano_roll"],  # what the loss of an evaluation is of
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    model = model_of_nine_drums()
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate(metric_key_prefix="eval")["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.8 * before
    trainer.save_model(tmp_path / "trained")
    loaded = MusicVAEModel.from_pretrained(tmp_path / "trained")
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_a_trainer_takes_windows_of_a_dataset_and_leaves_the_best_model(demo_grooves, tmp_path):
    windows = {
        split: load_windows(split, data_dir=demo_grooves, bars=1).with_format("torch")
        for split in ("train", "validation")
    }
    arguments = TrainingArguments(
        tmp_path / "run",
        max_steps=6,
        learning_rate=0.03,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        label_names=["piano_roll"],
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=3,
        save_steps=3,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model_of_nine_drums(),
        arguments,
        train_dataset=windows["train"],
        eval_dataset=windows["validation"],
        processing_class=MusicVAEProcessor(bars=1),
    )
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 2
    assert trainer.state.best_metric == min(losses)
    trainer.save_model(tmp_path / "trained")
    assert MusicVAEProcessor.from_pretrained(tmp_path / "trained").bars == 1
    best = MusicVAEModel.from_pretrained(trainer.state.best_model_checkpoint).state_dict()
    trained = MusicVAEModel.from_pretrained(tmp_path / "trained").state_dict()
    torch.testing.assert_close(trained, best, rtol=0, atol=0)
