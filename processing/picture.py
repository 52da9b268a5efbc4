"""Piano rolls as a picture."""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .counted import counted
from .drum_kit import DRUM_NAMES, NUM_DRUMS
from .errors import PianoRollError
from .piano_roll import QUARTERS_PER_BAR, check_piano_roll

# Pixels; a panel is its title, its grid and its bar numbers.
WIDTH, PANEL_HEIGHT, LEGEND_HEIGHT = 900, 230, 34
LEFT, RIGHT, TITLE = 104, 24, 38
GRID_WIDTH = WIDTH - LEFT - RIGHT
ROW_HEIGHT = 18
TITLE_SIZE, LABEL_SIZE = 15, 12
MARGIN_STEPS = 0.5  # before the first step and after the last, where early and late hits are
SMOOTHING = 4  # hits are drawn this many times as large and then reduced, for smooth edges

# A longer roll goes on in the next panel.
BARS_PER_PANEL = 8
MAX_PANELS = 128  # a browser shows at most 32,767 pixels a side
MAX_TITLE = 200  # characters, more than have room
TEXT, FAINT_TEXT = "#3a3a44", "#85858f"
BACKGROUND, BAND = "#ffffff", "#f7f7f9"
BAR_LINE, BEAT_LINE, STEP_LINE = "#a4a4ae", "#d8d8e0", "#ececf1"
MIN_STEP_WIDTH = 8  # pixels between lines of steps, which show how early or late a hit is
MIN_MARK_WIDTH = 4
COLORS = [(246, 207, 160), (240, 147, 106), (217, 80, 106), (147, 48, 122), (65, 33, 95)]
# By velocity, from the softest to the loudest.
VELOCITY_COLORS = np.stack(
    [
        np.interp(np.arange(128), np.linspace(1, 127, len(COLORS)), channel)
        for channel in zip(*COLORS, strict=True)
    ],
    axis=1,
).astype(np.uint8)


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
        titles: one line for each roll, cut where it is too long; the font has ASCII alone, so that
            letters lose their accents, and other characters become question marks.
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
    legend = len(drawn) * PANEL_HEIGHT
    picture = new_picture(legend + LEGEND_HEIGHT)
    for number, (roll, timing, title, start) in enumerate(drawn):
        top = number * PANEL_HEIGHT + TITLE
        grid = Grid(roll.shape[1], steps_per_bar, panel_steps)
        picture.paste(grid.draw(roll, timing), (0, top))
        grid.write_bar_numbers(picture, top, first_bar=start // steps_per_bar + 1)
        for drum, name in enumerate(DRUM_NAMES):
            write_label(picture, top + grid.center(drum), name)
        if start == 0:
            write(
                picture,
                (grid.left, top - 6),
                _fitted(title, WIDTH - RIGHT - grid.left),
                "ls",
                TITLE_SIZE,
            )
    draw_velocity_legend(picture, legend + 8)
    if len(drawn) < len(panels):
        note = f"{counted(len(panels) - len(drawn), 'more panel')} not drawn"
        write(picture, (LEFT, legend + 8), note, "lm")
    save(picture, Path(path))


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


def _fitted(title: str, width: int) -> str:
    """A title in characters of the font, cut to a width in pixels."""
    decomposed = unicodedata.normalize("NFKD", title[:MAX_TITLE])
    letters = "".join(each for each in decomposed if not unicodedata.combining(each))
    words = letters.encode("ascii", "replace").decode()
    title = "".join(each if each.isprintable() else " " for each in words)
    end = "" if _font(TITLE_SIZE).getlength(title) <= width else "..."
    while _font(TITLE_SIZE).getlength(title + end) > width:
        title = title[:-1]
    return title + end


class Grid:
    """The place of steps and drums in a picture.

    Args:
        steps: of the piano roll.
        steps_per_bar: steps in a bar of four quarters.
        full_steps: steps of a grid as wide as the picture.
        row_height: pixels of each drum.
    """

    def __init__(
        self, steps: int, steps_per_bar: int, full_steps: int, row_height: int = ROW_HEIGHT
    ):
        self.steps = steps
        self.steps_per_bar = steps_per_bar
        self.step_width = GRID_WIDTH / (full_steps + 2 * MARGIN_STEPS)
        self.row_height = row_height
        self.height = NUM_DRUMS * row_height
        self.left = round(self.x(0))

    def x(self, step: float) -> float:
        """Pixels from the picture's left edge to a step."""
        return LEFT + (step + MARGIN_STEPS) * self.step_width

    def center(self, drum: int) -> int:
        """Pixels from the grid's upper edge to the middle of a drum's row; the kick is lowest."""
        return self.height - drum * self.row_height - self.row_height // 2

    def draw(self, roll: np.ndarray, timing: np.ndarray) -> Image.Image:
        """The hits of a roll and timing (9, steps), as wide as a picture."""
        size = WIDTH * SMOOTHING, self.height * SMOOTHING
        image = Image.new("RGB", size, BACKGROUND)
        draw = ImageDraw.Draw(image)
        self._draw_empty(draw)
        width = max(self.step_width, MIN_MARK_WIDTH)
        height = self.row_height * 2 // 3
        for drum, step in np.argwhere(roll):
            left, center = self.x(float(step + timing[drum, step])), self.center(drum)
            color = tuple(map(int, VELOCITY_COLORS[roll[drum, step]]))
            draw.rounded_rectangle(
                _scaled(left, center - height / 2, left + width, center + height / 2),
                SMOOTHING * min(width, height) / 3,
                fill=color,
                outline=BACKGROUND,  # parts marks that overlap
                width=SMOOTHING // 2,
            )
        return image.reduce(SMOOTHING)

    def _draw_empty(self, draw: ImageDraw.ImageDraw) -> None:
        last = round(self.x(self.steps))
        for drum in range(0, NUM_DRUMS, 2):
            top = self.center(drum) - self.row_height // 2
            draw.rectangle(_scaled(self.left, top, last, top + self.row_height), BAND)
        lines = [
            (np.arange(0, self.steps, self.steps_per_bar / QUARTERS_PER_BAR), BEAT_LINE),
            (np.arange(0, self.steps + 1, self.steps_per_bar), BAR_LINE),
        ]
        if self.step_width >= MIN_STEP_WIDTH:
            lines.insert(0, (np.arange(self.steps), STEP_LINE))
        for places, color in lines:
            for place in places.tolist():
                x = round(self.x(place))
                draw.rectangle(_scaled(x, 0, x + 1, self.height), color)

    def write_bar_numbers(self, picture: Image.Image, top: int, first_bar: int = 1) -> None:
        """Writes the number of each bar below a grid that is `top` pixels from the upper edge."""
        for bar, step in enumerate(range(0, self.steps, self.steps_per_bar), first_bar):
            number = f"bar {bar}" if step == 0 else str(bar)
            place = round(self.x(step)), top + self.height + 14
            write(picture, place, number, "mm", color=FAINT_TEXT)


def _scaled(left: float, top: float, right: float, bottom: float) -> list[int]:
    """The corners of a rectangle of which Pillow draws the last pixel, too."""
    return [
        round(SMOOTHING * left),
        round(SMOOTHING * top),
        round(SMOOTHING * right) - 1,
        round(SMOOTHING * bottom) - 1,
    ]


def new_picture(height: int) -> Image.Image:
    """An empty picture, `WIDTH` pixels wide."""
    return Image.new("RGB", (WIDTH, height), BACKGROUND)


def write(
    picture: Image.Image,
    place: tuple[int, int],
    text: str,
    anchor: str,
    size: int = LABEL_SIZE,
    color: str = TEXT,
) -> None:
    """Writes a line at a place in pixels, at which the text has Pillow's anchor."""
    ImageDraw.Draw(picture).text(place, text, color, _font(size), anchor)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def write_label(picture: Image.Image, y: int, text: str) -> None:
    """Writes a line left of the grid, around `y` pixels from the upper edge."""
    write(picture, (LEFT - 8, y), text, "rm")


def draw_velocity_legend(picture: Image.Image, y: int) -> None:
    """Draws the legend of the colours of hits, around `y` pixels from the upper edge."""
    width, height, gap = 160, 8, 8
    left = WIDTH - RIGHT - 40 - width
    colors = VELOCITY_COLORS[np.linspace(1, 127, width).round().astype(int)]
    picture.paste(Image.fromarray(np.tile(colors, (height, 1, 1))), (left, y - height // 2))
    write(picture, (left - gap, y), "velocity 1", "rm", color=FAINT_TEXT)
    write(picture, (left + width + gap, y), "127", "lm", color=FAINT_TEXT)


def save(picture: Image.Image, path: Path) -> None:
    """Writes a PNG, replacing the file where it exists."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        picture.save(temporary, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
