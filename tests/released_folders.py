"""Checks of the folder of a released model."""

import json
from pathlib import Path

import torch
from huggingface_hub import ModelCard
from safetensors import safe_open

from modeling_musicvae import MusicVAEModel
from musicvae.evaluation.card import eval_results, evaluation_section
from musicvae.evaluation.report import facts_of, read_report
from musicvae.release import MAX_WEIGHTS_BYTES


def check_weights(folder: Path) -> None:
    """Float16 in a small file, the same numbers in float32 where they are loaded."""
    path = folder / "model.safetensors"
    assert path.stat().st_size <= MAX_WEIGHTS_BYTES * 1.001  # with the header
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    loaded = MusicVAEModel.from_pretrained(folder).state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    assert [name for name in loaded if not torch.equal(loaded[name], stored[name].float())] == []


def check_card(folder: Path) -> None:
    """The card has the evaluation, for readers and for the Hub, and this is of the weights."""
    report = read_report(folder / "evaluation/evaluation.json")
    card = ModelCard.load(folder / "README.md")
    assert evaluation_section(report) in card.text
    assert card.data.eval_results == eval_results(report)
    facts = json.loads(json.dumps(facts_of(MusicVAEModel.from_pretrained(folder))))
    assert facts.items() <= report.facts.items()
