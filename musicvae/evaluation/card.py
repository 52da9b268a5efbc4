"""The evaluation section of a model card."""

from collections.abc import Iterator, Sequence

from huggingface_hub import EvalResult

from musicvae.training.model_folder import DATA_NAMES
from processing.counted import counted

from .bootstrap import Estimate
from .interpolation import NUM_POINTS
from .report import BY_FEATURE, LEGENDS, Measures, Report, features_as_rows, readable, table

CARD_LEGENDS = LEGENDS | {
    "attributes": "Change of each attribute by adding its vector with strength 1 and -1, in "
    "standard deviations of the split."
}
# Of each part the figures that tell a user of the model most.
OBJECTIVE = ("elbo", "reconstruction_loss", "kl_bits", "active_latents")
GENERALIZATION = ("hits_loss", "reconstruction_loss")
DRUMS = (
    "pattern_accuracy",
    "hit_f1",
    "velocity_mae",
    "timing_mae_ms",
    "velocity_kl",
    "timing_kl",
)
FEATURES = (
    "hits_per_bar",
    "syncopation",
    "repeated_bars",
    "bar_similarity",
    "two_bar_similarity",
    "velocity_mean",
    "velocity_spread",
    "timing_mean",
    "timing_spread",
)
DISTANCES = ("nearest_training_window", "nearest_other")
DISTANCE_FIGURES = ("mean", "5%", "identical")
# Of the drums that a model makes, those whose figures the Hub reads.
WAYS = ("teacher_forced", "sampled", "greedy")
MIDDLE = f"{(NUM_POINTS // 2) / (NUM_POINTS - 1):g}"

PICTURES = {
    "reconstruction": {
        "reconstructions.png": "Windows as played, and the drums that the model makes of them",
        "latent_space.png": "The latents of all windows by style, in two principal components",
    },
    "samples": {"distributions.png": "Distributions of new drums over those of played ones"},
    "interpolation": {"interpolation.png": "A path between two windows"},
}


def evaluation_section(report: Report) -> str:
    """The section of a model card, in Markdown, that begins with "## Evaluation"; its plots are in
    evaluation/ next to the card."""
    facts = report.facts
    lines = [
        "## Evaluation",
        "",
        f"On the {facts['split']} split of the {data_name(facts['data'])}, "
        f"{counted(facts['windows'], 'window')} of {counted(facts['bars'], 'bar')} that do not "
        f"overlap, from {counted(facts['recordings'], 'recording')}; in brackets 95 % intervals "
        f"by the bootstrap over recordings. Seed {facts['seed']}, on {facts['machine']}. "
        "All figures are in `evaluation/`, made by",
        "",
        "```",
        facts["command"],
        "```",
        "",
    ]
    for part, measured in report.measures.items():
        lines += [f"### {readable(part).capitalize()}", "", CARD_LEGENDS[part], ""]
        for columns in brief_tables(part, measured):
            lines += [*table(columns), ""]
        lines += pictures(PICTURES.get(part, {}))
    return "\n".join(lines)


def data_name(data: str) -> str:
    return DATA_NAMES.get(data, data)


def pictures(captions: dict[str, str]) -> list[str]:
    return [
        line for name, text in captions.items() for line in (f"![{text}](evaluation/{name})", "")
    ]


def brief_tables(part: str, measured: Measures) -> Iterator[dict[str, Measures]]:
    """The tables of a part, each by its columns, with the most telling of its figures."""
    match part:
        case "reconstruction":
            yield {"value": pick(measured["objective"], OBJECTIVE)}
            yield pick_each(measured["generalization"], GENERALIZATION)
            yield pick_each(measured["drums"], DRUMS)
        case "transformation":
            yield pick_each(measured["drums"], DRUMS)
        case "samples":
            yield measured["summary"]
            areas = features_as_rows(measured[BY_FEATURE])["overlapping_area"]
            yield {
                f"overlapping area of {readable(name)}": column
                for name, column in pick_each(areas, FEATURES).items()
            }
            if DISTANCES[0] in measured:
                yield {
                    name: {
                        distance: pick(measured[distance][name], DISTANCE_FIGURES)
                        for distance in DISTANCES
                    }
                    for name in measured[DISTANCES[0]]
                }
        case "interpolation":
            yield {name: from_the_middle(path) for name, path in measured.items()}
        case "attributes":
            yield {
                strength: {name: changes[name] for name, changes in of_vectors.items()}
                for strength, of_vectors in measured.items()
            }
        case "styles":
            yield measured
        case _:
            raise ValueError(f"part: found {part}, expected one of {', '.join(LEGENDS)}")


def pick(figures: Measures, names: Sequence[str]) -> Measures:
    return {name: figures[name] for name in names if name in figures}


def pick_each(columns: dict[str, Measures], names: Sequence[str]) -> dict[str, Measures]:
    return {name: pick(figures, names) for name, figures in columns.items()}


def from_the_middle(path: Measures) -> dict[str, Estimate]:
    """Of a path that is measured at all its points."""
    ends = ("distance_to_start", "distance_to_end")
    middle = {f"{end}_from_the_middle": path[end][MIDDLE] for end in ends}
    return middle | pick(path, ("step_distance", "step_variation"))


def eval_results(report: Report) -> list[EvalResult]:
    """Results for the head of a card, which the Hub reads: the objective, and the drums that the
    model makes, in each way.

    A model that transforms drums is measured by what it makes of them.
    """
    facts, measures = report.facts, report.measures
    figures = dict(measures["reconstruction"]["objective"])
    drums = measures["transformation" if "transformation" in measures else "reconstruction"][
        "drums"
    ]
    for way, of_way in pick(drums, WAYS).items():
        figures |= {f"{name}_{way}": figure for name, figure in pick(of_way, DRUMS).items()}
    return [
        EvalResult(
            task_type="other",
            dataset_type=facts["data"],
            dataset_name=data_name(facts["data"]),
            dataset_split=facts["split"],
            metric_type=name,
            metric_name=readable(name),
            metric_value=figure.value,
        )
        for name, figure in figures.items()
        if figure.value is not None
    ]
