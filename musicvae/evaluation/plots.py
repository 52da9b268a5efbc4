"""Plots of an evaluation."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from modeling_musicvae import MusicVAEConfig, MusicVAEModel, spherical_interpolation
from processing.picture import (
    BACKGROUND,
    BAR_LINE,
    FAINT_TEXT,
    TEXT,
    WIDTH,
    Grid,
    draw_piano_rolls,
    draw_velocity_legend,
    new_picture,
    save,
    write_label,
)

from ..atomic import whole_file
from ..data.windows import main_style
from ..tasks import task_of
from .interpolation import NUM_POINTS, draw_pairs
from .latents import posterior_means
from .samples import common_grid, features, gaussian_kernels
from .transformations import transform
from .windows import Windows

NUM_RECONSTRUCTIONS = 2
# A power of two, so that inches times DPI is a whole number of pixels and none is cut off.
DPI = 128
TITLE_SIZE, LABEL_SIZE = 8, 6.3  # points
STRIP_ROW_HEIGHT, STRIP_PITCH = 8, 84  # of an interpolation
COLUMNS, CELL_HEIGHT, CURVE_HEIGHT = 4, 136, 74
CELL_TITLE, KEY_HEIGHT = 30, 44
MARGIN = 24
PLAYED, DRAWN = "#d8d8df", "#b02a6b"
MAP_HEIGHT, MAP_LEFT, MAP_WIDTH = 560, 62, 640
# As many as can be distinguished; the rarer styles share the last.
STYLE_COLORS = ("#d9506a", "#3f7fb5", "#eda13a", "#4a9d6e", "#7b4aa8", "#46c2c9", "#8a5a3c")
OTHER_STYLES = "#c4c4cc"


@torch.no_grad()
def draw_all(
    parts: Sequence[str],
    model: MusicVAEModel,
    windows: Windows,
    samples: Windows | None,
    folder: Path,
    seed: int,
) -> None:
    """Draws PNGs 900 pixels wide: reconstructions.png (of a conditional model the drums that it
    makes of transformed ones) and latent_space.png of the part reconstruction, distributions.png of
    samples, and interpolation.png.

    Args:
        parts: those of the evaluation.
        model: that is evaluated.
        windows: of the split, without overlap, at least 2.
        samples: drawn by `draw_samples`; only for their part.
        folder: an existing one.
        seed: of the choice of windows.
    """
    means = posterior_means(model, windows)
    if "reconstruction" in parts:
        draw_reconstructions(model, windows, seed, folder / "reconstructions.png")
        draw_latent_space(means, windows.style, folder / "latent_space.png")
    if "samples" in parts and samples is not None:
        draw_distributions(windows, samples, model.config, folder / "distributions.png")
    if "interpolation" in parts:
        draw_interpolation(model, windows, means, seed, folder / "interpolation.png")


def draw_reconstructions(model: MusicVAEModel, windows: Windows, seed: int, path: Path) -> None:
    """Windows of different recordings, and above each the model's drums for it."""
    order = np.random.default_rng(seed).permutation(len(windows))
    _, firsts = np.unique(windows.file[order], return_index=True)
    played = windows.select(order[np.sort(firsts)[:NUM_RECONSTRUCTIONS]].tolist())
    if model.config.input_transform == "none":
        made = model.reconstruct(played.piano_roll, played.timing, temperature=0)
    else:
        made = transform(model, played, 0, torch.Generator())
    rolls = torch.stack([made.piano_roll, played.piano_roll], 1).flatten(0, 1)
    timings = torch.stack([made.timing, played.timing], 1).flatten(0, 1)
    titles = []
    for style, bpm in zip(played.style, played.bpm.tolist(), strict=True):
        name = f"{style or 'groove'}, {bpm:.0f} bpm"
        titles += [f"{name}: {task_of(model.config).made}", f"{name}: as played"]
    draw_piano_rolls(rolls.numpy(), timings.numpy(), path, titles, model.config.steps_per_bar)


def draw_distributions(
    windows: Windows, samples: Windows, config: MusicVAEConfig, path: Path
) -> None:
    """The density of each of `features`, of samples over that of windows."""
    played, drawn = (features(each, config) for each in (windows, samples))
    figure = _new_figure(KEY_HEIGHT + -(-len(played) // COLUMNS) * CELL_HEIGHT)
    width = (WIDTH - MARGIN) / COLUMNS
    for index, name in enumerate(played):
        row, column = divmod(index, COLUMNS)
        axes = _add_axes(
            figure,
            MARGIN + column * width,
            KEY_HEIGHT + row * CELL_HEIGHT + CELL_TITLE,
            width - MARGIN,
            CURVE_HEIGHT,
        )
        axes.set_title(name.replace("_", " "), size=TITLE_SIZE, color=TEXT, loc="left", pad=5)
        values = (each[name][~np.isnan(each[name])] for each in (played, drawn))
        _draw_densities(axes, *values)
    _draw_key(figure, {"played": PLAYED, "new": DRAWN})
    _save(figure, path)


def _draw_densities(axes: Axes, played: np.ndarray, drawn: np.ndarray) -> None:
    grid, bandwidth = common_grid(played, drawn)
    densities = [
        gaussian_kernels(each, grid, bandwidth).sum(0) / max(len(each), 1)
        for each in (played, drawn)
    ]
    axes.fill_between(grid, densities[0], color=PLAYED, linewidth=0)
    axes.plot(grid, densities[1], color=DRAWN, linewidth=1.2)
    few, most = np.quantile(np.concatenate([played, drawn]), (0.005, 0.995))
    axes.set_xlim(few - 3 * bandwidth, most + 3 * bandwidth)
    axes.set_ylim(0, 1.2 * np.max(densities))
    axes.set_yticks([])
    axes.text(
        1,
        1,
        f"overlap {np.minimum(*densities).sum():.2f}",
        transform=axes.transAxes,
        size=LABEL_SIZE,
        color=FAINT_TEXT,
        ha="right",
        va="top",
    )
    axes.locator_params(axis="x", nbins=5)
    _plain(axes)


def draw_interpolation(
    model: MusicVAEModel, windows: Windows, means: torch.Tensor, seed: int, path: Path
) -> None:
    """A path between two windows, one below the other, with the windows at its ends."""
    pair = [index.item() for index in draw_pairs(len(windows), 1, seed)]
    ends = windows.select(pair)
    made = model.decode(spherical_interpolation(*means[pair], NUM_POINTS), temperature=0)
    labels = [str(Fraction(point, NUM_POINTS - 1)) for point in range(NUM_POINTS)]
    strips = [
        (ends.piano_roll[0], ends.timing[0], "start, as played"),
        *zip(made.piano_roll, made.timing, labels, strict=True),
        (ends.piano_roll[1], ends.timing[1], "end, as played"),
    ]

    legend = MARGIN + len(strips) * STRIP_PITCH + MARGIN
    picture = new_picture(legend + MARGIN)
    steps = model.config.num_steps
    grid = Grid(steps, model.config.steps_per_bar, steps, STRIP_ROW_HEIGHT)
    for index, (roll, timing, label) in enumerate(strips):
        top = MARGIN + index * STRIP_PITCH
        picture.paste(grid.draw(roll.numpy(), timing.numpy()), (0, top))
        write_label(picture, top + grid.height // 2, label)
    grid.write_bar_numbers(picture, top)
    draw_velocity_legend(picture, legend)
    save(picture, path)


def draw_latent_space(means: torch.Tensor, styles: list[str], path: Path) -> None:
    """Latents by their first two principal components, coloured by main style."""
    points, shares = principal_components(means.double().numpy())
    main_styles = np.array([main_style(style) for style in styles])
    figure = _new_figure(MAP_HEIGHT)
    axes = _add_axes(figure, MAP_LEFT, MARGIN, MAP_WIDTH, MAP_HEIGHT - 3 * MARGIN)
    for label, color, shown in group_styles(main_styles):
        x, y = points[shown].T
        axes.scatter(
            x,
            y,
            s=18,
            color=color,
            edgecolors=BACKGROUND,
            linewidths=0.4,
            label=f"{label} ({shown.sum()})",
        )
    _plain(axes)
    axes.set_xlabel(f"first principal component, {shares[0]:.0%} of the variance")
    axes.set_ylabel(f"second, {shares[1]:.0%}")
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set(size=LABEL_SIZE, color=FAINT_TEXT)
    if any(styles):
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(1.01, 1),
            frameon=False,
            fontsize=TITLE_SIZE,
            labelcolor=TEXT,
            handletextpad=0.2,
        )
    _save(figure, path)


def principal_components(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, size) by their first two principal components, (n, 2), and the shares of the
    variance that these have, (2,)."""
    centered = points - points.mean(0)
    left, scales, _ = np.linalg.svd(centered, full_matrices=False)
    return left[:, :2] * scales[:2], scales[:2] ** 2 / (scales**2).sum()


def group_styles(styles: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    """The most frequent styles first, and last the others together: each with its name, its colour
    and where it is, bool (n,)."""
    names, counts = np.unique(styles, return_counts=True)
    names = names[np.argsort(-counts, kind="stable")][: len(STYLE_COLORS)]
    groups = [
        (name, color, styles == name) for name, color in zip(names, STYLE_COLORS, strict=False)
    ]
    others = ~np.isin(styles, names)
    return [*groups, ("other", OTHER_STYLES, others)] if others.any() else groups


def _new_figure(height: int) -> Figure:
    """An empty figure, `WIDTH` pixels wide."""
    return Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=BACKGROUND)


def _add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
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


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")


def _plain(axes: Axes) -> None:
    axes.set_facecolor(BACKGROUND)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(BAR_LINE)
    axes.tick_params(length=2, color=BAR_LINE, labelsize=LABEL_SIZE, labelcolor=FAINT_TEXT)


def _draw_key(figure: Figure, colors: dict[str, str]) -> None:
    axes = _add_axes(figure, MARGIN, 8, WIDTH - 2 * MARGIN, 20)
    axes.axis("off")
    axes.legend(
        handles=[Patch(color=color, label=label) for label, color in colors.items()],
        loc="center left",
        bbox_to_anchor=(0, 0.5),
        borderpad=0,
        borderaxespad=0,
        ncols=len(colors),
        frameon=False,
        fontsize=TITLE_SIZE,
        labelcolor=TEXT,
        handlelength=1.2,
        handleheight=0.8,
    )
