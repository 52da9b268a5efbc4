"""The evaluation section of a model card."""

from typing import Any

import pytest

from musicvae.evaluation.bootstrap import Estimate
from musicvae.evaluation.card import eval_results, evaluation_section
from musicvae.evaluation.report import Report

HALF, ONE, NOTHING = Estimate(0.5, 0.25, 0.75), Estimate(1.0, 0.9, 1.1), Estimate(None)
WAYS = ("teacher_forced", "sampled", "greedy")
DRUMS = {
    "pattern_accuracy": Estimate(0.5),
    "hit_precision": ONE,
    "hit_f1": Estimate(1.0),
    "velocity_mae": NOTHING,
}
OBJECTIVE = {
    "elbo": Estimate(-412.37, -431.2, -370.21),
    "reconstruction_loss": Estimate(351.2, 320.0, 381.0),
    "hits_loss": Estimate(111.0, 100.0, 121.0),
    "kl_bits": Estimate(87.25, 82.1, 92.6),
    "active_latents": Estimate(256),
}
MEASURES = {
    "reconstruction": {
        "objective": OBJECTIVE,
        "generalization": {
            name: {"hits_loss": ONE, "velocity_loss": HALF}
            for name in ("training_windows", "split", "gap")
        },
        "drums": {way: DRUMS for way in WAYS} | {"silence": DRUMS},
        "hit_f1_of_each_drum": {way: {"kick": ONE} for way in WAYS},
    },
    "samples": {
        "summary": {"samples": {"mean_overlapping_area": HALF}, "other_split": {}},
        "distributions": {
            feature: {"overlapping_area": {"samples": HALF, "other_split": ONE}}
            for feature in ("syncopation", "kick_hits_per_bar")
        },
        **{
            distance: {
                of: {"mean": ONE, "50%": HALF, "identical": HALF} for of in ("samples", "played")
            }
            for distance in ("nearest_training_window", "nearest_other")
        },
    },
    "interpolation": {
        way: {
            "distance_to_start": {"0": ONE, "0.5": HALF},
            "distance_to_end": {"0": ONE, "0.5": HALF},
            "step_distance": ONE,
            "step_variation": HALF,
        }
        for way in ("spherical", "mixed")
    },
    "attributes": {
        strength: {
            "density": {"density": ONE, "swing": HALF},
            "swing": {"density": HALF, "swing": HALF},
        }
        for strength in ("+1", "-1")
    },
    "styles": {"samples": {"all_styles": HALF, "funk": HALF}, "played": {"all_styles": ONE}},
}
FACTS = {
    "model": "outputs/drummer",
    "decoder": "hierarchical",
    "bars": 4,
    "parameters": 5_123_456,
    "free_bits": 48.0,
    "max_beta": 0.2,
    "command": "musicvae evaluate outputs/drummer --split validation",
    "data": "groove",
    "split": "validation",
    "windows": 504,
    "recordings": 46,
    "seed": 3,
    "machine": "a machine",
}
REPORT = Report(FACTS, MEASURES)
INTRODUCTION = """\
## Evaluation

On the validation split of the Groove MIDI Dataset, 504 windows of 4 bars that do not overlap, \
from 46 recordings; in brackets 95 % intervals by the bootstrap over recordings. Seed 3, \
on a machine. All figures are in `evaluation/`, made by

```
musicvae evaluate outputs/drummer --split validation
```
"""
TABLES = {
    "objective": """\
| measure | value |
| --- | ---: |
| elbo | -412 [-431, -370] |
| reconstruction loss | 351 [320, 381] |
| kl bits | 87.2 [82.1, 92.6] |
| active latents | 256 |
""",
    "losses of training windows next to those of the split": """\
| measure | training windows | split | gap |
| --- | ---: | ---: | ---: |
| hits loss | 1.00 [0.900, 1.10] | 1.00 [0.900, 1.10] | 1.00 [0.900, 1.10] |
""",
    "drums next to a baseline": """\
| measure | teacher forced | sampled | greedy | silence |
| --- | ---: | ---: | ---: | ---: |
| pattern accuracy | 0.500 | 0.500 | 0.500 | 0.500 |
| hit f1 | 1.00 | 1.00 | 1.00 | 1.00 |
| velocity mae | – | – | – | – |
""",
    "samples in one figure": """\
| measure | samples | other split |
| --- | ---: | ---: |
| mean overlapping area | 0.500 [0.250, 0.750] | – |
""",
    "shares of styles that are recognised": """\
| measure | samples | played |
| --- | ---: | ---: |
| all styles | 0.500 [0.250, 0.750] | 1.00 [0.900, 1.10] |
| funk | 0.500 [0.250, 0.750] | – |
""",
    "samples next to real ones": """\
| measure | overlapping area of samples | overlapping area of other split |
| --- | ---: | ---: |
| syncopation | 0.500 [0.250, 0.750] | 1.00 [0.900, 1.10] |
""",
    "memorisation": """\
| measure | samples | played |
| --- | ---: | ---: |
| nearest training window mean | 1.00 [0.900, 1.10] | 1.00 [0.900, 1.10] |
| nearest training window identical | 0.500 [0.250, 0.750] | 0.500 [0.250, 0.750] |
""",
    "interpolation": """\
| distance to start from the middle | 0.500 [0.250, 0.750] | 0.500 [0.250, 0.750] |
| distance to end from the middle | 0.500 [0.250, 0.750] | 0.500 [0.250, 0.750] |
| step distance | 1.00 [0.900, 1.10] | 1.00 [0.900, 1.10] |
""",
    "attributes, each of its own vector": """\
| measure | +1 | -1 |
| --- | ---: | ---: |
| density | 1.00 [0.900, 1.10] | 1.00 [0.900, 1.10] |
| swing | 0.500 [0.250, 0.750] | 0.500 [0.250, 0.750] |
""",
}


def of(part: str, measured: Any) -> Report:
    return Report(FACTS, {part: measured})


def test_the_section_says_how_the_figures_were_made():
    assert evaluation_section(REPORT).startswith(INTRODUCTION)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_the_section_has_a_brief_table_of(table):
    assert table in evaluation_section(REPORT)


def test_figures_of_transformed_drums_are_next_to_the_baseline():
    drums = {"greedy": {"timing_kl": HALF}, "baseline": {"timing_kl": ONE}}
    text = evaluation_section(of("transformation", {"drums": drums}))
    assert "| timing kl | 0.500 [0.250, 0.750] | 1.00 [0.900, 1.10] |" in text


def test_a_part_that_was_not_measured_has_no_heading():
    text = evaluation_section(of("reconstruction", MEASURES["reconstruction"]))
    assert "### Reconstruction" in text
    assert text.count("### ") == 1


def test_the_hub_reads_the_same_figures():
    results = {result.metric_type: result for result in eval_results(REPORT)}
    assert results["elbo"].metric_value == -412.37
    assert results["pattern_accuracy_sampled"].metric_value == 0.5
    assert "velocity_mae_sampled" not in results
    assert {(each.dataset_type, each.dataset_split) for each in results.values()} == {
        ("groove", "validation")
    }


def test_the_hub_reads_nothing_of_baselines():
    assert not any("silence" in result.metric_type for result in eval_results(REPORT))


def test_a_model_that_transforms_is_measured_by_that():
    transformation = {"drums": {"greedy": {"timing_kl": HALF}, "baseline": {"timing_kl": ONE}}}
    report = Report(FACTS, MEASURES | {"transformation": transformation})
    names = {result.metric_type for result in eval_results(report)}
    assert names == {*OBJECTIVE, "timing_kl_greedy"}
