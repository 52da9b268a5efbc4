"""Piano rolls as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import BoxStyle

from .drum_kit import DRUM_NAMES, NUM_DRUMS
from .errors import PianoRollError
from .piano_roll import QUARTERS_PER_BAR, check_piano_roll

# A power of two, so that inches times DPI is a whole number of pixels and none is cut off.
DPI = 128
# Pixels; a panel is its title, its grid and its bar numbers.
WIDTH, PANEL_HEIGHT, LEGEND_HEIGHT = 900, 230, 34
LEFT, RIGHT, TITLE, BAR_NUMBERS = 104, 24, 34, 26
GRID_WIDTH, GRID_HEIGHT = WIDTH - LEFT - RIGHT, PANEL_HEIGHT - TITLE - BAR_NUMBERS
MARK_HEIGHT = 12
MARGIN_STEPS = 0.5  # before the first step and after the last, where early and late hits are
# Points.
TITLE_SIZE, LABEL_SIZE = 8, 6.3

# A longer roll goes on in the next panel.
BARS_PER_PANEL = 8
MAX_PANELS = 128  # a picture has at most 65,535 pixels a side
TEXT, FAINT_TEXT = "#3a3a44", "#85858f"
BACKGROUND, BAND = "#ffffff", "#f7f7f9"
BAR_LINE, BEAT_LINE, STEP_LINE = "#a4a4ae", "#d8d8e0", "#ececf1"
MIN_STEP_WIDTH = 8  # pixels between lines of steps, which show how early or late a hit is
VELOCITY = Normalize(1, 127)
VELOCITY_COLORS = LinearSegmentedColormap.from_list(
    "velocity", ["#f6cfa0", "#f0936a", "#d9506a", "#93307a", "#41215f"]
)


def draw_piano_rolls(
    piano_rolls: np.ndarray,
    timings: np.ndarray | None,
    path: str | Path,
    titles: Sequence[str] | None = None,
    steps_per_bar: int = 16,
) -> None:
    """Draws piano rolls one below the other into a PNG, 900 pixels wide, eight bars a panel.

    A mark is a hit: it starts at the hit's onset, and the darker it is the louder the hit. Beyond
    128 panels, the picture says how many it leaves out.

    Args:
        piano_rolls: uint8 (n, 9, steps), MIDI velocities, 0 where silent.
        timings: float32 (n, 9, steps), onset - grid in steps, in [-0.5, 0.5); None draws all hits
            on the grid.
        path: the file to write, replaced where it exists.
        titles: one for each roll.
        steps_per_bar: steps in a bar of four quarters.

    Raises:
        ValueError: an argument has the wrong shape, dtype or range.
    """
    if timings is None:
        timings = np.zeros(piano_rolls.shape, np.float32)
    if titles is None:
        titles = [""] * len(piano_rolls)
    _check(piano_rolls, timings, titles, steps_per_bar)

    panel_steps = min(BARS_PER_PANEL * steps_per_bar, piano_rolls.shape[2])
    panels = [
        (roll[:, start : start + panel_steps], timing[:, start : start + panel_steps], title, start)
        for roll, timing, title in zip(piano_rolls, timings, titles, strict=True)
        for start in range(0, roll.shape[1], panel_steps)
    ]
    drawn = panels[:MAX_PANELS]
    figure = new_figure(len(drawn) * PANEL_HEIGHT + LEGEND_HEIGHT)
    for number, (roll, timing, title, start) in enumerate(drawn):
        steps = roll.shape[1]
        width = GRID_WIDTH * (steps + 2 * MARGIN_STEPS) / (panel_steps + 2 * MARGIN_STEPS)
        axes = add_axes(figure, LEFT, number * PANEL_HEIGHT + TITLE, width, GRID_HEIGHT)
        draw_grid(axes, steps, steps_per_bar, first_bar=start // steps_per_bar + 1)
        if start == 0:
            axes.text(0, NUM_DRUMS, title, size=TITLE_SIZE, color=TEXT, parse_math=False)
        draw_hits(axes, roll, timing)
    draw_velocity_legend(figure, top=len(drawn) * PANEL_HEIGHT + 4)
    if len(drawn) < len(panels):
        note = f"{len(panels) - len(drawn)} more panels are not drawn"
        axes.text(0, -2.6, note, size=LABEL_SIZE, color=TEXT)
    save(figure, Path(path))


def _check(
    piano_rolls: np.ndarray, timings: np.ndarray, titles: Sequence[str], steps_per_bar: int
) -> None:
    if piano_rolls.ndim != 3 or piano_rolls.size == 0:
        raise PianoRollError(
            f"piano_rolls: found shape {piano_rolls.shape}, expected (n, {NUM_DRUMS}, steps)"
        )
    if timings.shape != piano_rolls.shape:
        raise PianoRollError(
            f"timings: found shape {timings.shape}, expected {piano_rolls.shape} as piano_rolls"
        )
    for roll, timing in zip(piano_rolls, timings, strict=True):
        check_piano_roll(roll, timing)
    if len(titles) != len(piano_rolls):
        raise ValueError(f"titles: found {len(titles)}, expected {len(piano_rolls)}, one a roll")
    if steps_per_bar < 1:
        raise ValueError(f"steps_per_bar: found {steps_per_bar}, expected 1 or more")


def new_figure(height: int) -> Figure:
    """An empty picture, `WIDTH` pixels wide."""
    return Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=BACKGROUND)


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in pixels from the figure's upper left corner."""
    figure_width, figure_height = figure.get_size_inches() * DPI
    bottom = figure_height - top - height
    return figure.add_axes(
        (
            left / figure_width,
            bottom / figure_height,
            width / figure_width,
            height / figure_height,
        )
    )


def draw_grid(axes: Axes, steps: int, steps_per_bar: int, first_bar: int = 1) -> None:
    """An empty piano roll with its drums, beats and bars."""
    axes.set_xlim(-MARGIN_STEPS, steps + MARGIN_STEPS)
    axes.set_ylim(-0.6, NUM_DRUMS - 0.4)
    axes.set_facecolor(BACKGROUND)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=5)
    axes.barh(range(0, NUM_DRUMS, 2), steps, height=1, color=BAND, zorder=0)
    if axes.get_window_extent().width / steps >= MIN_STEP_WIDTH:
        axes.vlines(np.arange(steps), -0.5, NUM_DRUMS - 0.5, STEP_LINE, linewidth=0.4, zorder=1)
    beats = np.arange(0, steps, steps_per_bar / QUARTERS_PER_BAR)
    axes.vlines(beats, -0.5, NUM_DRUMS - 0.5, BEAT_LINE, linewidth=0.6, zorder=1)
    bars = np.arange(0, steps + 1, steps_per_bar)
    axes.vlines(bars, -0.5, NUM_DRUMS - 0.5, BAR_LINE, linewidth=0.8, zorder=1)

    starts = np.arange(0, steps, steps_per_bar)
    numbers = [f"bar {first_bar}", *range(first_bar + 1, first_bar + len(starts))]
    axes.set_xticks(starts, numbers, size=LABEL_SIZE, color=FAINT_TEXT)
    axes.set_yticks(range(NUM_DRUMS), DRUM_NAMES, size=LABEL_SIZE, color=TEXT)


def draw_hits(
    axes: Axes, roll: np.ndarray, timing: np.ndarray, mark_height: int = MARK_HEIGHT
) -> None:
    """The hits of a roll and timing (9, steps) on a grid, each a mark of a height in pixels."""
    first, last = axes.get_xlim()
    step_width = axes.get_window_extent().width / (last - first)
    width = max(step_width, 4)
    rounding = min(width, mark_height) / 3
    mark = BoxStyle.Round(pad=0, rounding_size=rounding)(
        -width / 2, -mark_height / 2, width, mark_height, mutation_size=1
    )
    drums, steps = np.nonzero(roll)
    onsets = steps + timing[drums, steps]
    axes.scatter(
        onsets + width / step_width / 2,
        drums,
        # Scatter takes the area of the square around the mark, in square points.
        s=(max(width, mark_height) * 72 / DPI) ** 2,
        c=roll[drums, steps],
        marker=mark,
        cmap=VELOCITY_COLORS,
        norm=VELOCITY,
        edgecolors=BACKGROUND,  # parts marks that overlap
        linewidths=0.6,
        zorder=2,
    )


def draw_velocity_legend(figure: Figure, top: float) -> None:
    """Draws the legend of the colours of hits, `top` pixels from the upper edge."""
    axes = add_axes(figure, WIDTH - RIGHT - 200, top, 160, 8)
    bar = figure.colorbar(
        ScalarMappable(VELOCITY, VELOCITY_COLORS), cax=axes, orientation="horizontal"
    )
    bar.outline.set_visible(False)
    axes.set_xticks([])
    for x, text, side in ((-0.05, "velocity 1", "right"), (1.05, "127", "left")):
        axes.text(
            x,
            0.5,
            text,
            transform=axes.transAxes,
            size=LABEL_SIZE,
            color=FAINT_TEXT,
            ha=side,
            va="center",
        )


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, replacing the file where it exists."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        figure.savefig(temporary, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
