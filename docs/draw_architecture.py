"""Figure of the architecture, docs/architecture.png: `python docs/draw_architecture.py`."""

from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

INK, GREY, LOOK_BACK = "#22252b", "#767c87", "#c0392b"
ENCODER, LATENT, CONDUCTOR, DECODER = "#cfe3f7", "#f9dcc4", "#d9ead3", "#e4dcf1"
BARS = (6.0, 8.1, 10.2, 12.3)  # centres of the bars
BAR_WIDTH, ROLL_HEIGHT, STEPS = 2.1, 0.95, 16
LOOK_BACK_STEP = 10
# The steps that each drum of a bar is hit on, from the lowest drum to the highest.
GROOVE = ((0, 7, 10), (4, 12), range(0, 16, 2), (14,), (), (), (15,), (0,), ())


def main() -> None:
    figure, axes = plt.subplots(figsize=(11.4, 5.2))
    axes.set(xlim=(0, 14.2), ylim=(0, 6.5), aspect="equal")
    axes.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    draw_encoder(axes)
    draw_latent(axes)
    draw_conductor(axes)
    draw_decoder(axes)
    figure.savefig(Path(__file__).with_name("architecture.png"), dpi=120)


def draw_encoder(axes: Axes) -> None:
    label(axes, 1.75, 5.0, "Encoder", "bidirectional LSTM over the steps")
    cells = np.linspace(0.6, 2.9, 5)
    for x in cells:
        arrow(axes, (x, 2.12), (x, 2.75))
        for y in (3.0, 3.9):
            box(axes, x, y, 0.34, 0.44, ENCODER)
    for left, right in pairwise(cells):
        arrow(axes, (left + 0.17, 3.0), (right - 0.17, 3.0))
        arrow(axes, (right - 0.17, 3.9), (left + 0.17, 3.9))
    draw_groove(axes, 0.25, 3.0, bars=len(BARS))
    axes.text(1.75, 0.72, "four bars of drums", ha="center", fontsize=9, color=GREY)


def draw_latent(axes: Axes) -> None:
    for y in (3.0, 3.9):
        arrow(axes, (3.09, y), (3.66, 3.45 + 0.3 * (y - 3.45)))
    box(axes, 4.0, 3.45, 0.64, 0.95, LATENT, "$\\mu$\n$\\sigma$", 14)
    arrow(axes, (4.0, 3.95), (4.0, 4.63), r"$\mu + \sigma\,\epsilon$")
    axes.add_patch(Circle((4.0, 5.0), 0.36, facecolor=LATENT, edgecolor=INK))
    axes.text(4.0, 4.98, "$z$", ha="center", va="center", fontsize=16)
    arrow(axes, (4.36, 5.1), (BARS[0] - 0.5, 5.5))


def draw_conductor(axes: Axes) -> None:
    label(axes, np.mean(BARS), 6.02, "Conductor", "LSTM, one embedding a bar")
    for number, x in enumerate(BARS, 1):
        box(axes, x, 5.55, 1.0, 0.5, CONDUCTOR)
        arrow(axes, (x, 5.29), (x, 4.9))
        box(axes, x, 4.68, 1.0, 0.4, CONDUCTOR, f"bar {number}", 9)
        arrow(axes, (x, 4.47), (x, 4.0))
    for left, right in pairwise(BARS):
        arrow(axes, (left + 0.51, 5.55), (right - 0.51, 5.55))


def draw_decoder(axes: Axes) -> None:
    for x in BARS:
        cells = x + np.linspace(-0.66, 0.66, 4)
        box(axes, x, 3.45, 1.84, 1.05, "#faf8fd")
        for left, right in pairwise(cells):
            arrow(axes, (left + 0.14, 3.45), (right - 0.14, 3.45))
        for cell in cells:
            box(axes, cell, 3.45, 0.28, 0.5, DECODER)
            arrow(axes, (cell, 3.19), (cell, 2.12))
    axes.text(
        np.mean(BARS), 2.55, "pattern of nine drums, then velocity and timing of each hit",
        ha="center", va="center", fontsize=9, color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
    )  # fmt: skip
    label(axes, 4.1, 2.4, "Decoder", "autoregressive\nLSTM, starts anew\nin each bar")
    draw_groove(axes, BARS[0] - BAR_WIDTH / 2, BAR_WIDTH * len(BARS), bars=len(BARS))
    draw_look_back(axes)


def draw_look_back(axes: Axes) -> None:
    """From a step of the last bar's decoder to the frames at the same step of the bars before."""
    steps = [x + BAR_WIDTH * ((LOOK_BACK_STEP + 0.5) / STEPS - 0.5) for x in BARS]
    for x in steps[:-1]:
        axes.add_patch(Rectangle((x - 0.07, 1.1), 0.14, ROLL_HEIGHT, fill=False, ec=LOOK_BACK))
        axes.plot([x, x], [1.08, 0.62], color=LOOK_BACK, lw=1.2, ls="--")
    right = BARS[-1] + BAR_WIDTH / 2 + 0.3
    axes.plot([steps[0], right, right], [0.62, 0.62, 3.45], color=LOOK_BACK, lw=1.2, ls="--")
    arrow(axes, (right, 3.45), (BARS[-1] + 0.94, 3.45), colour=LOOK_BACK)
    text = "look-back: the frames at the same step one, two and three bars earlier"
    axes.text(np.mean(BARS), 0.3, text, ha="center", va="center", fontsize=9, color=LOOK_BACK)


def draw_groove(axes: Axes, left: float, width: float, bars: int) -> None:
    """A piano roll of nine drums; the darker a hit, the louder."""
    axes.add_patch(Rectangle((left, 1.1), width, ROLL_HEIGHT, facecolor="#f6f7f9", edgecolor=GREY))
    rng = np.random.default_rng(3)
    row, column = ROLL_HEIGHT / len(GROOVE), width / bars / STEPS
    for bar in range(bars):
        for drum, steps in enumerate(GROOVE):
            for step in steps:
                if drum in (6, 7) and bar not in (0, bars - 1):
                    continue  # a crash and a tom at the ends alone
                x = left + (bar * STEPS + step + rng.uniform(-0.15, 0.15)) * column
                shade = str(rng.uniform(0.05, 0.6))
                y = 1.1 + drum * row
                axes.add_patch(
                    Rectangle((max(x, left), y + 0.02), column, row - 0.04, facecolor=shade)
                )
    for x in left + width / bars * np.arange(1, bars):
        axes.plot([x, x], [1.1, 1.1 + ROLL_HEIGHT], color=GREY, lw=0.8)


def box(
    axes: Axes, x: float, y: float, width: float, height: float, colour: str,
    text: str = "", fontsize: float = 10,
) -> None:  # fmt: skip
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.07"
    axes.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=colour, edgecolor=INK)
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=fontsize, color=INK)


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str = "",
    colour: str = INK,
) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=8, color=colour, shrinkA=0, shrinkB=0
        )
    )
    axes.text(start[0] + 0.1, (start[1] + end[1]) / 2, text, va="center", fontsize=10)


def label(axes: Axes, x: float, y: float, name: str, kind: str) -> None:
    axes.text(x, y + 0.06, name, ha="center", va="bottom", fontsize=12, weight="bold", color=INK)
    axes.text(x, y, kind, ha="center", va="top", fontsize=9, color=GREY)


if __name__ == "__main__":
    main()
