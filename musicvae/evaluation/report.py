"""The report of an evaluation: as JSON, and as tables in Markdown."""

import hashlib
import json
import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from modeling_musicvae import MusicVAEModel
from musicvae.atomic import write_text
from musicvae.training.model_folder import machine

from .bootstrap import Estimate

LIBRARIES = ("datasets", "numpy", "torch", "transformers")

# What is measured of many features: tables have a row for each, and not as many tables.
BY_FEATURE = "distributions"

# Explanations of the tables of each part.
LEGENDS = {
    "reconstruction": "Losses are in nats per sequence. Drums are teacher forced (greedy given the "
    "ground-truth previous steps), sampled (at temperature 1, from a draw of the posterior) or "
    "greedy (from the posterior mean). Errors of velocity, in MIDI units, and of timing are over "
    "hits that are in both. Generalization: losses of windows that the model was trained on, of "
    "the split, and the gap between them.",
    "transformation": "The model's drums for transformed ones, sampled at temperature 1 or greedy, "
    "and those of a baseline that has the same input. Divergences are in nats.",
    "samples": "New drums, and those of another split, compared with those of the split. The "
    "similarity of bars is the F1 of their hits; overlaps are those of distributions over windows. "
    "Distances are numbers of hits that differ from the nearest drums.",
    "interpolation": "Shares of steps whose patterns differ along spherical paths between two "
    "windows, and along paths that mix the steps of both.",
    "attributes": "Changes of each attribute (rows) by adding the vector of an attribute (columns) "
    "with strength 1 and -1, in standard deviations of the split.",
    "styles": "Shares of drums whose style is recognised by a classifier that was trained on the "
    "training split: new drums of each style, and those of the split.",
}

# A name -> a `Estimate`, or more measures under that name.
Measures = dict[str, Any]


class ReportError(ValueError):
    """A file that is not a report."""


class Report(NamedTuple):
    """Facts of an evaluation, and its measures; see `write_report`."""

    facts: dict[str, Any]
    measures: Measures


def write_report(facts: dict[str, Any], measures: Measures, output_dir: Path) -> None:
    """Writes evaluation.json, with all figures, and evaluation.md, with tables of them.

    Args:
        facts: what was evaluated, and how.
        measures: by the part of the evaluation, one of `LEGENDS`.
        output_dir: where to.
    """
    facts = facts | {
        "versions": {library: version(library) for library in LIBRARIES},
        "machine": machine(),
    }
    content = facts | {"measures": as_json(measures)}
    write_text(output_dir / "evaluation.json", json.dumps(content, indent=2) + "\n")
    write_text(output_dir / "evaluation.md", as_markdown(facts, measures))


def facts_of(model: MusicVAEModel) -> dict[str, Any]:
    """Identifies a model.

    Returns:
        decoder, bars, free_bits and max_beta as configured; parameters, how many; weights_sha256,
        in float32.
    """
    weights = hashlib.sha256()
    for tensor in model.state_dict().values():
        weights.update(tensor.float().numpy().tobytes())
    return {
        **{name: getattr(model.config, name) for name in ("decoder", "bars")},
        "parameters": model.num_parameters(),
        **{name: getattr(model.config, name) for name in ("free_bits", "max_beta")},
        "weights_sha256": weights.hexdigest(),
    }


def read_report(path: Path) -> Report:
    """The report in an evaluation.json.

    Raises:
        ReportError: the file is missing, or has no report.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Report(content, from_json(content.pop("measures")))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ReportError(f"{path}: found {error!r}, expected an evaluation.json") from error


def from_json(measures: dict[str, Any]) -> Any:
    if measures.keys() == set(Estimate._fields):
        return Estimate(**measures)
    return {name: from_json(measure) for name, measure in measures.items()}


def as_json(measures: Measures | Estimate) -> dict[str, Any]:
    if isinstance(measures, Estimate):
        return measures._asdict()
    return {name: as_json(measure) for name, measure in measures.items()}


def as_markdown(facts: dict[str, Any], measures: Measures) -> str:
    lines = [f"# Evaluation of {facts['model']}", ""]
    lines += [f"- {readable(name)}: `{fact}`" for name, fact in facts.items() if name != "versions"]
    lines += ["", "In brackets: 95 % intervals by the bootstrap over recordings.", ""]
    for part, measured in measures.items():
        lines += [f"## {readable(part).capitalize()}", "", LEGENDS[part], ""]
        for title, columns in tables(measured):
            lines += [f"### {readable(title)}", ""] if title else []
            lines += [*table(columns), ""]
    return "\n".join(lines)


def tables(measures: Measures, title: str = "") -> Iterator[tuple[str, dict[str, Measures]]]:
    """The largest tables that named figures fit in, each with its title and by its columns.

    Estimates under one name are a column, next to the columns of other names.
    """
    if any(isinstance(measure, Estimate) for measure in measures.values()):
        yield title, {"value": measures}
    elif all(
        any(isinstance(figure, Estimate) for figure in column.values())
        for column in measures.values()
    ):
        yield title, measures
    else:
        for name, measure in measures.items():
            measure = features_as_rows(measure) if name == BY_FEATURE else measure
            yield from tables(measure, f"{title}: {name}" if title else name)


def features_as_rows(measures: Measures) -> Measures:
    """feature -> measure -> set -> figure, turned into measure -> set -> feature -> figure."""
    turned: Measures = {}
    for feature, of_feature in measures.items():
        for measure, of_sets in of_feature.items():
            for name, figure in of_sets.items():
                turned.setdefault(measure, {}).setdefault(name, {})[feature] = figure
    return turned


def table(columns: dict[str, Measures]) -> list[str]:
    """The lines of a table with a row for each name that a column has."""
    columns = {name: dict(rows(measures)) for name, measures in columns.items()}
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    head = [["measure", *map(readable, columns)], ["---", *["---:"] * len(columns)]]
    body = [
        [readable(name), *(cell(column.get(name)) for column in columns.values())] for name in names
    ]
    return [f"| {' | '.join(words)} |" for words in head + body]


def rows(measures: Measures, title: str = "") -> Iterator[tuple[str, Estimate]]:
    """Every figure by all its names."""
    for name, measure in measures.items():
        name = f"{title} {name}".strip()
        if isinstance(measure, Estimate):
            yield name, measure
        else:
            yield from rows(measure, name)


def cell(figure: Estimate | None) -> str:
    if figure is None or figure.value is None:
        return "–"
    if figure.low is None or figure.high is None:
        return number(figure.value)
    return f"{number(figure.value)} [{number(figure.low)}, {number(figure.high)}]"


def number(value: float) -> str:
    """Three significant digits, but all before the decimal point and at most three after it."""
    if isinstance(value, int):
        return str(value)
    if not value:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    return f"{value:.{min(max(2 - magnitude, 0), 3)}f}"


def readable(name: str) -> str:
    return name.replace("_", " ")
