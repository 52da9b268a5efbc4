"""Models are pulled from the Hub, whole or not at all, and may be pushed again.

What pulls runs in processes that know no Hub but the one on the loopback interface; some of them
have nothing of ours but what they pull.
"""

import inspect
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import BARS, SIZES, STEPS_PER_BAR, random_model
from huggingface_hub import HfApi, snapshot_download
from loopback_hub import Repository
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig

import musicvae
from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from modeling_musicvae.pretrained_musicvae import PretrainedModelError
from processing import MusicVAEProcessor

WEIGHTS = "model.safetensors"


def write_model(folder: Path, model: MusicVAEModel) -> Path:
    model.save_pretrained(folder)
    MusicVAEProcessor(bars=BARS, steps_per_bar=STEPS_PER_BAR).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """That of a whole model; not to be written to."""
    return write_model(tmp_path_factory.mktemp("models") / "whole", random_model())


@pytest.fixture(scope="module")
def api(running_hub, token) -> HfApi:
    return HfApi(running_hub.url, token)


@pytest.fixture(scope="module")
def upload(running_hub, client, api) -> Callable[..., Repository]:
    """Makes a folder a private repository of Ann's, or its next commit."""

    def upload(folder: Path, name: str) -> Repository:
        id = f"ann/{name}"
        client(api.create_repo, id, private=True, exist_ok=True)
        client(api.upload_folder, repo_id=id, folder_path=str(folder))
        return running_hub.repo(id)

    return upload


@pytest.fixture(scope="module")
def repo(upload, client, api, folder, tmp_path_factory) -> Repository:
    """One whose tag `v1` is the model of `folder`, and whose newest commit is it, changed."""
    repo = upload(folder, "drums")
    client(api.create_tag, repo.id, tag="v1")
    newest = tmp_path_factory.mktemp("models") / "newest"
    return upload(write_model(newest, changed(random_model())), "drums")


def changed(model: Any) -> Any:
    with torch.no_grad():
        model.encoder.mean.bias += 1
    return model


def contents(model: Any) -> dict[str, Any]:
    """All that makes a model what it is, and drums that it makes."""
    config = model.config.to_dict()
    del config["_name_or_path"]
    weights = {name: tensor.clone().numpy() for name, tensor in model.state_dict().items()}
    drums = model.sample(2, generator=torch.Generator().manual_seed(0))
    return {
        "config": config,
        "weights": weights,
        "drums": {name: tensor.numpy() for name, tensor in drums.items()},
    }


@pytest.fixture(scope="module")
def expected(folder) -> dict[str, dict[str, Any]]:
    """The contents of `repo`'s revisions."""
    model = MusicVAEModel.from_pretrained(folder)
    return {"v1": contents(model), "main": contents(changed(model))}


def pull(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return contents(MusicVAEModel.from_pretrained(*args, **kwargs))


# Whole models


def test_a_model_is_pulled_by_branch_by_tag_and_by_commit(client, repo, expected):
    commits = {"v1": repo.tags["v1"], "main": repo.branches["main"]}
    for name, commit in commits.items():
        for revision in (name, commit):
            np.testing.assert_equal(client(pull, repo.id, revision=revision), expected[name])


def sample_by_name(id: str) -> np.ndarray:
    (drums,) = musicvae.load(id).sample(temperature=1.0)
    return drums.piano_roll


def test_a_model_on_the_hub_is_found_by_its_name(client, repo):
    assert client(sample_by_name, repo.id).shape[1] == BARS * STEPS_PER_BAR


def test_a_name_that_the_hub_does_not_know_is_refused(client):
    with pytest.raises(FileNotFoundError, match="no such model on the Hub: the Hub answers 404"):
        client(sample_by_name, "ann/nothing")


# What those run who have the libraries and nothing of ours. Models are pulled, each at a revision;
# where a repository is named for it, the model is changed and pushed there.
STRANGER = f"""
import json
import pickle
import sys
from typing import Any


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("modeling_musicvae", "processing", "training"):
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, NotInstalled())

import torch
from transformers import AutoModel, AutoProcessor

{inspect.getsource(changed)}
{inspect.getsource(contents)}

def pull(id, revision, target):
    settings = dict(revision=revision, trust_remote_code=True)
    model = AutoModel.from_pretrained(id, **settings)
    processor = AutoProcessor.from_pretrained(id, **settings)
    for loaded in (model, model.config, processor):
        assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
    assert processor.bars == model.config.bars
    if target:
        changed(model).push_to_hub(target, private=True)
        processor.push_to_hub(target)
    return contents(model)


path, orders = sys.argv[1:]
with open(path, "wb") as file:
    pickle.dump([pull(*order) for order in json.loads(orders)], file)
"""


def run_stranger(
    environment: dict[str, str], folder: Path, *orders: tuple[str, str, str | None]
) -> list[dict[str, Any]]:
    """The contents of what is pulled."""
    path = folder / "pulled"
    command = [sys.executable, "-I", "-c", STRANGER, path, json.dumps(orders)]
    result = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return pickle.loads(path.read_bytes())


def push_changed(id: str, target: str) -> dict[str, Any]:
    """Pulls, changes and pushes a model and its processor."""
    model = changed(MusicVAEModel.from_pretrained(id, revision="v1"))
    model.push_to_hub(target, private=True)
    MusicVAEProcessor.from_pretrained(id).push_to_hub(target)
    return contents(model)


@pytest.mark.slow
def test_a_model_pulled_changed_pushed_and_pulled_again_is_the_same(
    hub, client, environment, repo, folder, expected, tmp_path
):
    ours, theirs = "ann/changed-by-us", "ann/changed-by-strangers"
    models = [client(push_changed, repo.id, ours)]
    models += run_stranger(environment, tmp_path, (ours, "main", None), (repo.id, "v1", theirs))
    models += [client(pull, target) for target in (ours, theirs)]
    client(snapshot_download, theirs)
    hub.requests.clear()
    orders = [(theirs, revision, None) for revision in ("main", hub.repo(theirs).branches["main"])]
    models += run_stranger(environment | {"HF_HUB_OFFLINE": "1"}, tmp_path, *orders)
    assert hub.requests == []
    for model in models:
        np.testing.assert_equal(model, expected["main"])
    whole = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != WEIGHTS}
    for target in (ours, theirs):  # the same code, which the same config refers to
        files = hub.repo(target).files()
        assert {name: files.get(name) for name in whole} == whole


# What is not there


@pytest.mark.parametrize("loader", [MusicVAEModel, AutoModel])
def test_a_private_model_is_not_pulled_without_a_token(loader, client, repo, tmp_path):
    message = f"(?s){repo.id} is not .*If this is a private repository, make sure to pass a token"
    with pytest.raises(OSError, match=message):
        client(loader.from_pretrained, repo.id, token=False, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("id", "revision", "message"),
    [
        ("ann/no-drums", "main", "ann/no-drums is not a local folder and is not a valid model"),
        ("ann/drums", "v2", "v2 is not a valid git identifier"),
    ],
    ids=["repository", "revision"],
)
def test_what_is_not_on_the_hub_is_named(id, revision, message, client, repo):
    with pytest.raises(OSError, match=message):
        client(pull, id, revision=revision)


# What is incomplete or another's


def edit_weights(edit: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        edit(weights)
        save_file(weights, folder / WEIGHTS, {"format": "pt"})

    return damage


def cut_off(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 4)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def edit_json(name: str, **fields: Any) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return damage


edit_config = partial(edit_json, "config.json")


def save_in_parts(model: MusicVAEModel, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="5KB")
    (folder / WEIGHTS).unlink(missing_ok=True)


def in_parts(edit: Callable[[Path], object]) -> Callable[[Path], None]:
    """A damage to a model whose weights are in several files."""

    def damage(folder: Path) -> None:
        save_in_parts(MusicVAEModel.from_pretrained(folder), folder)
        edit(folder)

    return damage


NAME = "encoder.mean.weight"
INDEX = f"{WEIGHTS}.index.json"
DAMAGES = {
    "no config": (
        remove("config.json"),
        "found no config.json, expected one of model_type 'musicvae'",
    ),
    "config of another model": (
        BertConfig().save_pretrained,
        "found a config.json of model_type 'bert', expected one of model_type 'musicvae'",
    ),
    "config without model type": (
        write("config.json", '{"type": "MusicVAE"}'),
        "found a config.json of model_type None, expected",
    ),
    **{
        f"config with {name} {value!r}": (
            edit_config(**{name: value}),
            rf"config.json: .*{name}: found {value!r}, expected ",
        )
        for name, value in {
            "dtype": "evil",
            "latent_size": 10**6,
            "encoder_num_layers": 10**6,
            "steps_per_bar": 10**9,
            "decoder_hidden_size": 10**30,
            "timing_bins": 10**6 + 1,
        }.items()
    },
    "config of too many steps": (
        edit_config(bars=256, steps_per_bar=1920),
        r"config.json: .*bars \* steps_per_bar: found 491520, expected at most 16384",
    ),
    **{
        f"config with {name}": (
            edit_config(**{name: value}),
            f"config.json: {name}: found one, expected none",
        )
        for name, value in {
            "quantization_config": {"quant_method": "bitsandbytes"},
            "transformers_weights": "other.safetensors",
            "attn_implementation": "kernels-community/evil",
            "_attn_implementation": "kernels-community/evil",
            "experts_implementation": "evil/evil",
        }.items()
    },
    "config with words for numbers": (
        edit_config(bars="four"),
        "config.json: TypeError: Field 'bars' expected int, got str",
    ),
    "config with labels": (edit_config(id2label=[1]), "config.json: "),
    "config that is null": (
        write("config.json", "null"),
        "found a config.json of model_type None, expected",
    ),
    "config that is deep": (
        write("config.json", "[" * 100_000),
        "found a config.json of model_type None, expected",
    ),
    "config that is long": (
        write("config.json", " " * (1 << 20) + "{}"),
        "found a config.json of 1048578 bytes, expected at most 1048576",
    ),
    "config with a list": (
        write("config.json", "[4]"),
        "found a config.json of model_type None, expected",
    ),
    "config of other sizes": (
        MusicVAEConfig(**SIZES | {"latent_size": 5}).save_pretrained,
        r"found weights with attribute_vectors of shape \(5, 6\) instead of \(5, 5\), .*more, exp",
    ),
    "config of fewer layers": (
        MusicVAEConfig(**SIZES | {"decoder_num_layers": 1}).save_pretrained,
        "found weights with an unknown decoder.lstm.bias_hh_l1, an unknown .* more, expected",
    ),
    "weights without a tensor": (
        edit_weights(lambda weights: weights.pop(NAME)),
        f"found weights with no {NAME}, expected those of the config",
    ),
    "no weights in the file": (
        edit_weights(lambda weights: weights.clear()),
        "found weights with no conductor.* and 32 more, expected those of the config",
    ),
    "weights that are no numbers": (
        edit_weights(lambda weights: weights[NAME].fill_(float("nan"))),
        f"{NAME}: found NaN or inf, expected numbers",
    ),
    "weights of another shape than the config asks for": (
        edit_config(latent_size=4096, encoder_hidden_size=8192, encoder_num_layers=16),
        "found weights with no encoder.lstm.* more, expected those of the config",
    ),
    "weights in parts of another shape": (
        in_parts(edit_config(encoder_num_layers=16)),
        "found weights with no encoder.lstm.* more, expected those of the config",
    ),
    "weights in parts of which one is elsewhere": (
        in_parts(edit_json(INDEX, weight_map={NAME: "../other.safetensors"})),
        f"found a damaged {INDEX} .a part of another name.*, expected the index",
    ),
    "an index without its parts": (
        in_parts(edit_json(INDEX, weight_map=None)),
        f"found a damaged {INDEX} .*, expected the index",
    ),
    "weights that are cut off": (
        cut_off,
        r"found damaged weights \(.*not fully covered\), expected a whole safetensors file",
    ),
    "garbage for weights": (
        write(WEIGHTS, "<html>404</html>"),
        r"found damaged weights \(header too large.*\), expected a whole safetensors file",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_whatever_is_not_a_whole_model_is_refused(
    damage, message, upload, client, folder, tmp_path
):
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(PretrainedModelError, match=f"^{copy}: {message}"):
        MusicVAEModel.from_pretrained(copy)
    id = upload(copy, tmp_path.name).id
    with pytest.raises(PretrainedModelError, match=f"^{id}: {message}"):
        client(pull, id)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_pipe_is_not_waited_for(name, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises((OSError, PretrainedModelError), match=name):
        MusicVAEModel.from_pretrained(copy)


class Evil:
    """Unpickled, it leaves a file."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("evil"),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin", "training_args.bin"])
def test_pickled_weights_are_not_read(name, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = shutil.copytree(folder, tmp_path / "copy")
    torch.save({"weights": Evil()}, copy / name)
    MusicVAEModel.from_pretrained(copy)
    (copy / WEIGHTS).unlink()
    with pytest.raises(OSError, match="no file named|does not appear to have a file named"):
        MusicVAEModel.from_pretrained(copy)
    assert not Path("evil").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove(WEIGHTS), f"ann/.* does not appear to have a file named .*{WEIGHTS}"),
        (write("config.json", "drums"), "config.json' is not a valid JSON file"),
    ],
    ids=["no weights", "config that is no JSON"],
)
def test_what_transformers_refuses_stays_refused(damage, message, upload, client, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(OSError, match=message):
        client(pull, upload(copy, tmp_path.name).id)


# What `from_pretrained` takes and gives


def test_the_error_says_what_was_found(folder):
    model, info = MusicVAEModel.from_pretrained(folder, output_loading_info=True)
    np.testing.assert_equal(contents(model), pull(folder))
    assert info.keys() == {"missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"}
    assert not any(info.values())


@pytest.mark.parametrize("loader", [MusicVAEModel, AutoModel])
def test_tensors_of_other_shapes_start_anew_where_that_is_asked_for(loader, folder):
    model, info = loader.from_pretrained(
        folder, decoder_hidden_size=5, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert model.decoder.output.weight.shape[1] == 5
    assert model.decoder.output.weight.isfinite().all()
    assert "decoder.output.weight" in {name for name, *_ in info["mismatched_keys"]}
    assert torch.equal(model.encoder.mean.weight, load_file(folder / WEIGHTS)[NAME])


@pytest.mark.parametrize("kind", ["config", "folder", "file"])
def test_a_config_is_taken_instead_of_the_models_own(kind, folder, tmp_path):
    config = MusicVAEConfig(**SIZES, max_beta=0.5)
    config.save_pretrained(tmp_path)
    given = {"config": config, "folder": tmp_path, "file": tmp_path / "config.json"}[kind]
    weights = shutil.copytree(folder, tmp_path / "weights")
    (weights / "config.json").unlink()
    model = MusicVAEModel.from_pretrained(weights, config=given)
    assert model.config.max_beta == 0.5
    np.testing.assert_equal(contents(model)["drums"], pull(folder)["drums"])


def test_weights_in_parts_are_the_same(folder, tmp_path):
    save_in_parts(MusicVAEModel.from_pretrained(folder), tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    np.testing.assert_equal(pull(tmp_path), pull(folder))


def test_all_else_goes_to_transformers(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "drums")
    model = MusicVAEModel.from_pretrained(
        tmp_path, subfolder="drums", max_beta=0.5, dtype=torch.bfloat16
    )
    assert model.config.max_beta == 0.5
    assert model.dtype == torch.bfloat16


def test_weights_may_be_given_instead_of_a_folder(folder):
    weights = load_file(folder / WEIGHTS)
    settings = {"config": MusicVAEConfig(**SIZES), "state_dict": weights}
    np.testing.assert_equal(
        contents(MusicVAEModel.from_pretrained(None, **settings))["drums"], pull(folder)["drums"]
    )
    del weights[NAME]
    with pytest.raises(PretrainedModelError, match=f"^None: found weights with no {NAME},"):
        MusicVAEModel.from_pretrained(None, **settings)
