"""Damaged models at random, from a seed: each is read, equal or valid, or refused by name.

    pytest -m exhaustive -s tests/test_mutated_models.py

prints how many of many more ended how, and the most processor time and memory of one. None may
take more than a second of processor time or 500 MB.
"""

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from factories import drum_file, nine_drum_model, note_on, random_variables, seeded
from mutations import limits, mutated, mutated_json, mutated_json_file, outcomes
from training_runs import parse, tiny_model
from transformers.utils.logging import disable_progress_bar

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.pretrained_musicvae import PretrainedModelError
from musicvae.conversion import MagentaCheckpointError, build_model, read_magenta_js, read_npz
from musicvae.training.checkpoints import (
    CheckpointError,
    Progress,
    check_whole,
    load_checkpoint,
    save_checkpoint,
)
from processing import MusicVAEProcessor
from processing.errors import MidiError, ProcessorConfigError
from processing.piano_roll import check_piano_roll

FEW, MANY = 40, 2000
MAX_LENGTH = 1000  # of a message
NAMED = (
    CheckpointError,
    MagentaCheckpointError,
    PretrainedModelError,
    ProcessorConfigError,
)
Damage = Callable[[bytes, random.Random], bytes]


class Kind(NamedTuple):
    """A kind of file: how a folder with a whole one is made, which file it is, how it is damaged,
    and what is read of it, which `check` has found to be valid."""

    write: Callable[[Path], object]
    name: str
    damage: Damage
    read: Callable[[Path], object]


# Models


def write_model(folder: Path) -> None:
    nine_drum_model().save_pretrained(folder)
    MusicVAEProcessor(bars=2, steps_per_bar=8).save_pretrained(folder)


def write_model_in_parts(folder: Path) -> None:
    nine_drum_model().save_pretrained(folder, max_shard_size="300KB")


def read_model(folder: Path) -> object:
    """A model's identity: its config, its weights and drums of it."""
    model = MusicVAEModel.from_pretrained(folder)
    weights = [tensor.numpy().tobytes() for tensor in model.state_dict().values()]
    config = json.dumps(model.config.to_dict(), default=str)
    if model.config.is_conditioned or model.config.num_steps > 64:
        return config, weights, None
    drums = model.sample(1, 1.0, seeded(0))
    check_piano_roll(drums.piano_roll[0].numpy(), drums.timing[0].numpy())
    return config, weights, drums.piano_roll.numpy().tobytes()


def damaged_weights(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with other bytes, other numbers, or another header of the right length."""
    if rng.random() < 0.5:
        return mutated(data, rng, (b"\xff" * 8, b"\0" * 8, b"\x7f"))
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if rng.random() < 0.2:  # NaN or infinity, or just another number
        place = 4 * rng.randrange(len(body) // 4)
        number = np.float32(rng.choice((np.nan, np.inf, 1e30, 0.0))).tobytes()
        return data[: 8 + length] + body[:place] + number + body[place + 4 :]
    changed = json.dumps(mutated_json(header, rng)).encode()
    return len(changed).to_bytes(8, "little") + changed + body


# Processors

MIDI = drum_file(*(note_on(480 * beat, 36 + 2 * (beat % 2)) for beat in range(9)))


def read_processor(folder: Path) -> object:
    processor = MusicVAEProcessor.from_pretrained(folder)
    try:
        windows = processor(MIDI)
    except MidiError:  # its channel, say, is not that of the file
        return None
    for drums in zip(windows["piano_roll"], windows["timing"], strict=True):
        check_piano_roll(*drums)
    return [value.tobytes() for value in windows.values()]


# Magenta's checkpoints


def write_npz(folder: Path) -> None:
    np.savez_compressed(folder / "variables.npz", **random_variables(decoder="flat")[1])


def write_magenta_js(folder: Path) -> None:
    data, weights = b"", []
    for name, variable in random_variables(decoder="flat")[1].items():
        data += variable.astype("<f4").tobytes()
        weights.append({"name": name, "shape": variable.shape, "dtype": "float32"})
    manifest = [{"paths": ["shard"], "weights": weights}]
    converter = {"type": "DrumsConverter", "args": {"numSteps": 64}}
    (folder / "config.json").write_text(
        json.dumps({"type": "MusicVAE", "dataConverter": converter})
    )
    (folder / "weights_manifest.json").write_text(json.dumps(manifest))
    (folder / "shard").write_bytes(data)


def read_checkpoint_of_magenta(folder: Path) -> object:
    path = folder / "variables.npz"
    original = read_npz(str(path), 4) if path.exists() else read_magenta_js(str(folder))
    model = build_model(str(folder), original)
    return [tensor.numpy().tobytes() for tensor in model.state_dict().values()]


# Checkpoints of a run


def trained() -> tuple[Accelerator, torch.nn.Module, torch.optim.Optimizer]:
    accelerator, model = Accelerator(), tiny_model()
    model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters()))
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    return accelerator, model, optimizer


def write_checkpoint(folder: Path) -> None:
    accelerator, *_ = trained()
    training = parse(output_dir=folder).training
    save_checkpoint(accelerator, training, Progress(step=1, best_step=1), run={})


def read_checkpoint(folder: Path) -> object:
    """The restored state of a checkpoint, whose checksums are made to fit, or they would find each
    damage."""
    checkpoint = folder / "checkpoints/checkpoint-1"
    sums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in checkpoint.iterdir()
        if path.name != "checksums.json"
    }
    (checkpoint / "checksums.json").write_text(json.dumps(sums))
    check_whole(checkpoint)
    accelerator, model, optimizer = trained()
    progress = load_checkpoint(accelerator, checkpoint)
    moments = [tensor for state in optimizer.state.values() for tensor in state.values()]
    tensors = [*model.state_dict().values(), *moments, torch.get_rng_state()]
    return progress, [tensor.numpy().tobytes() for tensor in tensors]


IN_CHECKPOINT = "checkpoints/checkpoint-1"
KINDS = {
    "config.json": Kind(write_model, "config.json", mutated_json_file, read_model),
    "weights": Kind(write_model, "model.safetensors", damaged_weights, read_model),
    "index of weights": Kind(
        write_model_in_parts, "model.safetensors.index.json", mutated_json_file, read_model
    ),
    "processor_config.json": Kind(
        write_model, "processor_config.json", mutated_json_file, read_processor
    ),
    "npz": Kind(write_npz, "variables.npz", mutated, read_checkpoint_of_magenta),
    "magenta.js config": Kind(
        write_magenta_js, "config.json", mutated_json_file, read_checkpoint_of_magenta
    ),
    "magenta.js manifest": Kind(
        write_magenta_js, "weights_manifest.json", mutated_json_file, read_checkpoint_of_magenta
    ),
    "magenta.js shard": Kind(write_magenta_js, "shard", mutated, read_checkpoint_of_magenta),
    "checkpoint progress": Kind(
        write_checkpoint, f"{IN_CHECKPOINT}/progress.json", mutated_json_file, read_checkpoint
    ),
    "checkpoint optimiser": Kind(
        write_checkpoint, f"{IN_CHECKPOINT}/optimizer.bin", mutated, read_checkpoint
    ),
    "checkpoint random states": Kind(
        write_checkpoint, f"{IN_CHECKPOINT}/random_states_0.pkl", mutated, read_checkpoint
    ),
    "checkpoint weights": Kind(
        write_checkpoint, f"{IN_CHECKPOINT}/model.safetensors", damaged_weights, read_checkpoint
    ),
}


@pytest.mark.parametrize("number", [FEW, pytest.param(MANY, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_is_damaged_is_read_or_refused_by_name(kind, number, tmp_path, one_cpu_thread):
    disable_progress_bar()
    kind.write(tmp_path)
    path = tmp_path / kind.name
    whole, expected = path.read_bytes(), kind.read(tmp_path)

    def outcome(seed: int) -> str:
        damaged = kind.damage(whole, random.Random(seed))
        path.write_bytes(damaged)
        try:
            with limits():
                found = kind.read(tmp_path)
        except NAMED as error:
            check_message(str(error), tmp_path)
            return type(error).__name__
        except OSError as error:  # of transformers
            check_message(str(error), tmp_path)
            return "OSError"
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {damaged[:300]!r}") from error
        return "equal" if found == expected else "otherwise valid"

    counts = outcomes(range(number), outcome, f"mutated {kind.name}")
    assert counts.total() == number
    assert counts.total() - counts["equal"] > 0


def check_message(message: str, folder: Path) -> None:
    assert str(folder) in message
    assert len(message) < MAX_LENGTH
    assert len(message.splitlines()) < 6
