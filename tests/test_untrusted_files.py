"""Nothing that a stranger's files name or contain is executed, or read from elsewhere."""

import json
from pathlib import Path

import datasets
import pytest
import yaml
from factories import nine_drum_model
from training_runs import parse
from transformers import AutoModel, AutoProcessor

from modeling_musicvae import MusicVAEModel
from musicvae.data.windows import load_windows
from processing import MusicVAEProcessor
from processing.drum_kit import DRUM_NAMES
from processing.errors import DatasetFolderError, ProcessorConfigError

EVIL = Path("evil")
CARD = """---
configs:
- config_name: 4bar
  data_files:
  - split: train
    path: train.parquet
---
"""
CODE = f"import pathlib; pathlib.Path({str(EVIL)!r}).touch()\n"


@pytest.fixture(autouse=True)
def nothing_was_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not EVIL.exists()


def test_code_next_to_weights_and_settings(tmp_path):
    nine_drum_model().save_pretrained(tmp_path / "model")
    MusicVAEProcessor().save_pretrained(tmp_path / "model")
    files = list((tmp_path / "model").glob("*.py"))
    assert files
    for path in files:
        path.write_text(CODE)
    for loader in MusicVAEModel, AutoModel, MusicVAEProcessor, AutoProcessor:
        loader.from_pretrained(tmp_path / "model")


def test_a_tag_in_a_recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"data: demo\nseed: !!python/object/apply:pathlib.Path.touch [{EVIL}]")
    with pytest.raises((ValueError, SystemExit, yaml.YAMLError)):
        parse(config=path)


def test_a_script_in_a_dataset(tmp_path):
    dataset = tmp_path / "drums"
    dataset.mkdir()
    (dataset / "drums.py").write_text(CODE)
    with pytest.raises(DatasetFolderError, match="drums: found .* scripts are no longer supported"):
        load_windows("train", str(dataset))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "card", ["---\nconfigs: [[[\n---\n", CARD, ""], ids=["no YAML", "damaged data", "no card"]
)
def test_a_dataset_that_is_damaged_is_named(card, streaming, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "drums").mkdir()
    (tmp_path / "drums/train.parquet").write_bytes(b"PAR1 drums PAR1")
    (tmp_path / "drums/README.md").write_text(card)
    with pytest.raises(DatasetFolderError, match=f"^{tmp_path}/drums: found .*, expected a datas"):
        load_windows("train", str(tmp_path / "drums"), streaming=streaming)


def test_a_pitch_map_elsewhere(tmp_path):
    pitches = {name: [number] for number, name in enumerate(DRUM_NAMES)}
    (tmp_path / "map.json").write_text(json.dumps(pitches))
    MusicVAEProcessor(pitch_map=tmp_path / "map.json").save_pretrained(tmp_path / "processor")
    path = tmp_path / "processor/processor_config.json"
    settings = json.loads(path.read_text()) | {"pitch_map": str(tmp_path / "map.json")}
    path.write_text(json.dumps(settings))
    with pytest.raises(ProcessorConfigError, match="pitch_map: found .*map.json', expected one of"):
        MusicVAEProcessor.from_pretrained(tmp_path / "processor")
