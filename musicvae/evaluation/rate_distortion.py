"""Models compared by what their latents carry, and what is lost: a table and a picture.

    python -m evaluation.rate_distortion A/evaluation.json B/evaluation.json --output_dir compared

The rate is the KL divergence, the distortion the reconstruction loss (Alemi et al., Fixing a Broken
ELBO, 2018, arXiv 1711.00464).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from musicvae.atomic import write_text

from .plots import draw_rate_distortion
from .report import Report, ReportError, cell, number, read_reports

WAYS = ("teacher_forced", "sampled", "greedy")
HEAD = (
    "model",
    "decoder",
    "parameters, millions",
    "KL weight",
    "free bits",
    "KL divergence, bits",
    "reconstruction loss, nats",
    "ELBO, nats",
    *(f"pattern accuracy, {way.replace('_', '-')}" for way in WAYS),
    "hit F1, sampled",
)
NUM_WORDS = 2  # columns to align left


def main() -> None:
    arguments = parse_arguments()
    output_dir = arguments.output_dir
    reports = [report for path in arguments.reports for report in read_reports(path)]
    text = "\n".join(comparison_table(reports)) + "\n"
    output_dir.mkdir(parents=True, exist_ok=True)
    write_text(output_dir / "rate_distortion.md", text)
    draw_rate_distortion(reports, output_dir / "rate_distortion.png")
    print(text)
    print(f"Writes  {output_dir}/rate_distortion.md and rate_distortion.png")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", nargs="+", type=Path, metavar="EVALUATION.JSON")
    parser.add_argument("--output_dir", type=Path, default=Path(), help="(default: here)")
    return parser.parse_args()


def comparison_table(reports: Sequence[Report]) -> list[str]:
    """The lines of a Markdown table with a row for each model.

    Accuracies have no intervals in it, so that it can be read.

    Raises:
        ReportError: a report is without reconstruction.
    """
    ruler = ["---"] * NUM_WORDS + ["---:"] * (len(HEAD) - NUM_WORDS)
    return [f"| {' | '.join(words)} |" for words in (HEAD, ruler, *map(_row, reports))]


def _row(report: Report) -> list[str]:
    facts = report.facts
    if "reconstruction" not in report.measures:
        raise ReportError(
            f"{facts['model']}: found {', '.join(report.measures)}, expected reconstruction"
        )
    objective, drums = (report.measures["reconstruction"][name] for name in ("objective", "drums"))
    return [
        Path(facts["model"]).name,
        facts["decoder"],
        f"{facts['parameters'] / 1e6:.2f}",
        f"{facts['max_beta']:g}",
        f"{facts['free_bits']:g}",
        *(cell(objective[name]) for name in ("kl_bits", "reconstruction_loss", "elbo")),
        *(number(drums[way]["pattern_accuracy"].value) for way in WAYS),
        number(drums["sampled"]["hit_f1"].value),
    ]


if __name__ == "__main__":
    main()
