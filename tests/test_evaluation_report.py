"""The report: every figure in JSON, tables that can be read in Markdown."""

import json

import pytest
import torch
from factories import random_model

from musicvae.evaluation.bootstrap import Estimate
from musicvae.evaluation.report import (
    ReportError,
    facts_of,
    number,
    read_report,
    tables,
    write_report,
)

HALF, NOTHING, COUNT = Estimate(0.5, 0.25, 0.75), Estimate(None), Estimate(3)
MEASURES = {
    "reconstruction": {
        "objective": {"elbo": Estimate(-412.37, -431.2, -370.21), "active_latents": COUNT},
        "drums": {
            "sampled": {"hit_f1": HALF},
            "silence": {"hit_f1": Estimate(0.0), "mae": NOTHING},
        },
    },
    "samples": {
        "distributions": {
            "density": {"overlap": {"samples": HALF, "other_split": COUNT}},
            "swing": {"overlap": {"samples": COUNT, "other_split": HALF}},
        }
    },
    "interpolation": {"spherical": {"distance": {"0": HALF, "1": COUNT}, "evenness": HALF}},
}
FACTS = {"model": "drummer", "seed": 0}
MARKDOWN = """\
### objective

| measure | value |
| --- | ---: |
| elbo | -412 [-431, -370] |
| active latents | 3 |

### drums

| measure | sampled | silence |
| --- | ---: | ---: |
| hit f1 | 0.500 [0.250, 0.750] | 0 |
| mae | – | – |
"""


def test_json_has_every_figure_and_how_it_was_made(tmp_path):
    write_report(FACTS, MEASURES, tmp_path)
    report = json.loads((tmp_path / "evaluation.json").read_text())
    sampled = report["measures"]["reconstruction"]["drums"]["sampled"]
    assert sampled == {"hit_f1": {"value": 0.5, "low": 0.25, "high": 0.75}}
    assert {"model", "seed", "versions", "machine"} < set(report)


def test_a_report_is_read_as_it_was_written(tmp_path):
    write_report(FACTS, MEASURES, tmp_path)
    report = read_report(tmp_path / "evaluation.json")
    assert report.measures == MEASURES
    assert FACTS.items() <= report.facts.items()


@pytest.mark.parametrize("text", [None, "drums", "3", "{}", "[1]", '{"measures": [1]}'])
def test_what_is_no_report_is_refused(text, tmp_path):
    path = tmp_path / "evaluation.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ReportError, match="evaluation.json: found .*, expected an evaluation.json"):
        read_report(path)


def test_other_weights_are_another_model():
    model = random_model()
    before = facts_of(model)
    assert facts_of(random_model()) == before
    with torch.no_grad():
        model.encoder.mean.bias[0] += 1
    changed = facts_of(model)
    assert {name for name in before if before[name] != changed[name]} == {"weights_sha256"}


def test_markdown_has_a_column_for_each_way_and_baseline(tmp_path):
    write_report(FACTS, MEASURES, tmp_path)
    assert MARKDOWN in (tmp_path / "evaluation.md").read_text(encoding="utf-8")


def test_a_report_replaces_an_older_one_and_leaves_nothing_else(tmp_path):
    for model in ("old", "new"):
        write_report(FACTS | {"model": model}, MEASURES, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"evaluation.json", "evaluation.md"}
    assert "old" not in "".join(path.read_text(encoding="utf-8") for path in tmp_path.iterdir())


def test_features_are_rows():
    assert dict(tables(MEASURES["samples"])) == {
        "distributions: overlap": {
            "samples": {"density": HALF, "swing": COUNT},
            "other_split": {"density": COUNT, "swing": HALF},
        }
    }


def test_figures_within_others_are_rows_of_their_own(tmp_path):
    write_report(FACTS, MEASURES, tmp_path)
    text = (tmp_path / "evaluation.md").read_text(encoding="utf-8")
    assert "| distance 0 | 0.500 [0.250, 0.750] |\n| distance 1 | 3 |\n| evenness |" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (256, "256"),
        (0.0, "0"),
        (0.00123, "0.001"),
        (0.98765, "0.988"),
        (-9.8765, "-9.88"),
        (98.765, "98.8"),
        (-1234.5, "-1234"),
    ],
)
def test_a_number_has_three_digits(value, text):
    assert number(value) == text
