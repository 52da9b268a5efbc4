import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from processing import picture
from processing.picture import draw_piano_rolls


def random_rolls(seed: int, n: int = 2, steps: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (n, 9, steps)
    rolls = rng.integers(1, 128, shape, np.uint8) * (rng.random(shape) < 0.2)
    timings = rng.uniform(-0.5, 0.49, shape).astype(np.float32) * (rolls > 0)
    return rolls, timings


def drawn(folder, piano_rolls, timings, **options) -> bytes:
    path = folder / "picture.png"
    draw_piano_rolls(piano_rolls, timings, path, **options)
    return path.read_bytes()


def pixels(png: bytes) -> np.ndarray:
    """uint8 (height, width, 3)"""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    ("n", "steps", "panels"), [(1, 64, 1), (8, 32, 8), (1, 128, 1), (2, 16 * 20, 6)]
)
def test_the_picture_is_a_png_with_a_panel_for_every_eight_bars_of_a_roll(
    tmp_path, n, steps, panels
):
    png = drawn(tmp_path, *random_rolls(0, n, steps))
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", png[16:24]) == (900, 230 * panels + 34)


def test_the_last_bars_of_a_long_roll_show(tmp_path):
    rolls = np.zeros((1, 9, 160), np.uint8)
    silent = drawn(tmp_path, rolls, None)
    rolls[0, 0, -1] = 100
    assert drawn(tmp_path, rolls, None) != silent


def test_a_picture_has_no_more_panels_than_a_png_has_room_for(tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "MAX_PANELS", 2)
    rolls, timings = random_rolls(0, 1, 16 * 25)
    png = drawn(tmp_path, rolls, timings)
    assert struct.unpack(">II", png[16:24]) == (900, 230 * 2 + 34)
    assert (
        drawn(tmp_path, rolls[:, :, :256], timings[:, :, :256]) != png
    )  # which says what it lacks


def test_the_same_rolls_give_the_same_picture(tmp_path):
    rolls, timings = random_rolls(0)
    assert drawn(tmp_path, rolls, timings) == drawn(tmp_path, rolls, timings)


def test_everything_that_is_passed_shows(tmp_path):
    rolls, timings = random_rolls(0)
    louder = np.where(rolls == rolls.max(), 1, rolls).astype(np.uint8)
    pictures = {
        drawn(tmp_path, rolls, timings),
        drawn(tmp_path, rolls, None),
        drawn(tmp_path, louder, timings),
        drawn(tmp_path, np.zeros_like(rolls), None),
        drawn(tmp_path, rolls, timings, titles=["one", "two"]),
        drawn(tmp_path, rolls, timings, steps_per_bar=24),
    }
    assert len(pictures) == 6


@pytest.mark.parametrize(
    "title",
    [
        r"$\groove$",
        "Fünf \N{CJK UNIFIED IDEOGRAPH-9F13}\N{DRUM WITH DRUMSTICKS}",
        "\udcff\0",
        "two\nlines",
    ],
    ids=["formula", "beyond ASCII", "not text", "lines"],
)
def test_a_title_of_any_characters_is_one_line_of_the_fonts(tmp_path, title):
    silence = np.zeros((1, 9, 64), np.uint8)
    titled = pixels(drawn(tmp_path, silence, None, titles=[title]))
    rows = np.flatnonzero((titled != pixels(drawn(tmp_path, silence, None))).any((1, 2)))
    assert picture.TITLE - 24 < rows.min() <= rows.max() < picture.TITLE


def test_letters_lose_accents_that_the_font_lacks(tmp_path):
    rolls, _ = random_rolls(0, n=1)
    assert drawn(tmp_path, rolls, None, titles=["Trömmelé"]) == drawn(
        tmp_path, rolls, None, titles=["Trommele"]
    )


def test_a_long_title_ends_with_dots_where_the_grid_ends(tmp_path):
    silence = np.zeros((1, 9, 64), np.uint8)
    cut = pixels(drawn(tmp_path, silence, None, titles=["a long title " * 1000]))
    differs = (cut != pixels(drawn(tmp_path, silence, None))).any((0, 2))
    assert 860 < np.flatnonzero(differs).max() < 900 - 24


@pytest.mark.parametrize("bars", [1, 4, 8])
def test_a_hit_starts_at_its_onset(tmp_path, bars):
    steps = bars * 16
    onsets = np.array([0, 3, 9, steps - 1])
    timing = np.array([-0.5, -0.2, 0.3, 0.49], np.float32)
    rolls, timings = np.zeros((1, 9, steps), np.uint8), np.zeros((1, 9, steps), np.float32)
    rolls[0, 0, onsets], timings[0, 0, onsets] = 127, timing
    kicks = pixels(drawn(tmp_path, rolls, timings))[picture.TITLE + 8 * 18 + 9, picture.LEFT - 2 :]
    dark = (kicks.sum(1) < 400).astype(int)  # as no line is
    starts = np.flatnonzero(np.diff(dark) == 1) - 1
    step_width = picture.GRID_WIDTH / (steps + 1)
    assert starts == pytest.approx((onsets + timing + 0.5) * step_width, abs=1.5)


ROLLS, TIMINGS = random_rolls(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"piano_rolls": ROLLS[0]},
            r"piano_rolls: found shape \(9, 64\), expected \(n, 9, steps\)",
        ),
        ({"piano_rolls": ROLLS[:0]}, r"piano_rolls: found shape \(0, 9, 64\)"),
        (
            {"piano_rolls": ROLLS[:, :8], "timings": None},
            r"found uint8 \(8, 64\), expected uint8 \(9",
        ),
        ({"piano_rolls": ROLLS.astype(int)}, "found int64 .* expected uint8"),
        ({"piano_rolls": ROLLS | 128}, "velocity 255, expected 0 to 127"),
        ({"timings": TIMINGS[:1]}, r"timings: found shape \(1, 9, 64\), expected \(2, 9, 64\)"),
        ({"timings": TIMINGS.astype(float)}, "timing: found float64 .* expected float32"),
        ({"timings": TIMINGS + 1}, r"timing: found a value outside \[-0.5, 0.5\)"),
        ({"titles": ["one"]}, "titles: found 1, expected 2"),
        ({"steps_per_bar": 0}, "steps_per_bar: found 0, expected 1 or more"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_bad_argument_is_named_and_no_file_appears(tmp_path, arguments, message):
    good = {"piano_rolls": ROLLS, "timings": TIMINGS}
    with pytest.raises(ValueError, match=message):
        draw_piano_rolls(**good | arguments, path=tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "picture.png"
    folder.mkdir()
    with pytest.raises(OSError, match="picture.png"):
        draw_piano_rolls(ROLLS, TIMINGS, folder)
    assert list(tmp_path.rglob("*")) == [folder]


@pytest.mark.slow
@pytest.mark.parametrize("module", ["processing.picture", "musicvae.drummer"])
def test_drawing_drums_needs_no_matplotlib(module):
    code = f"import sys, {module}; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_importing_the_package_does_not_import_what_draws():
    code = "import sys, processing; sys.exit('processing.picture' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
