"""Bar lines where a file's time signatures put them."""

import pytest

from processing.bar_lines import (
    UNLIMITED,
    find_stretches,
    metre_error,
    nearest_bar_line,
    song_grid,
)
from processing.errors import TimeSignatureError

BAR = 1920  # ticks at 480 a quarter
FOUR_FOUR, THREE_FOUR = (4, 4), (3, 4)


def stretches(*signatures: tuple[int, int, int]):
    return find_stretches(list(signatures), 480)


def summed_up(*signatures: tuple[int, int, int]) -> list[tuple[int, int, bool]]:
    """Start, number of bars and whether they are in 4/4 of each stretch."""
    return [(s.start, s.num_bars, s.metre is None) for s in stretches(*signatures)]


@pytest.mark.parametrize(
    ("signatures", "expected"),
    [
        pytest.param([(0, 4, 4)], [(0, UNLIMITED, True)], id="4/4"),
        pytest.param([(0, 2, 2)], [(0, UNLIMITED, True)], id="2/2"),
        pytest.param([(0, 8, 8)], [(0, UNLIMITED, True)], id="8/8"),
        pytest.param([(0, 6, 8)], [(0, UNLIMITED, False)], id="6/8"),
        pytest.param([(0, 4, 4), (BAR, 2, 2)], [(0, UNLIMITED, True)], id="4/4 then 2/2"),
        pytest.param(
            [(0, 4, 4), (3 * BAR, 3, 4), (4 * BAR + 960, 4, 4)],
            [(0, 3, True), (3 * BAR, 2, False), (4 * BAR + 960, UNLIMITED, True)],
            id="two bars of 3/4 in the middle",
        ),
        pytest.param(
            [(0, 4, 4), (BAR + 480, 4, 4)],
            [(0, 1, True), (BAR, 1, False), (BAR + 480, UNLIMITED, True)],
            id="a bar cut short",
        ),
        pytest.param(
            [(0, 1, 4), (480, 4, 4)], [(0, 1, False), (480, UNLIMITED, True)], id="a pickup"
        ),
    ],
)
def test_a_time_signature_starts_a_bar(signatures, expected):
    assert summed_up(*signatures) == expected


@pytest.mark.parametrize(
    ("signatures", "grid"),
    [
        pytest.param([(0, 4, 4)], (0, UNLIMITED), id="no pickup"),
        pytest.param([(0, 4, 4), (8 * BAR, 3, 4)], (0, 8), id="another metre after eight bars"),
        pytest.param([(0, 1, 4), (480, 4, 4)], (480 - BAR, UNLIMITED), id="pickup of a quarter"),
        pytest.param([(0, 3, 4), (1440, 2, 2)], (1440 - BAR, UNLIMITED), id="pickup of three"),
        pytest.param([(0, 4, 4), (240, 4, 4)], (240 - BAR, UNLIMITED), id="4/4 again in the bar"),
        pytest.param(
            [(0, 1, 4), (480, 4, 4), (480 + 2 * BAR, 3, 4)], (480 - BAR, 3), id="pickup, two bars"
        ),
    ],
)
def test_a_short_first_bar_is_the_end_of_one(signatures, grid):
    assert song_grid(stretches(*signatures)) == grid


@pytest.mark.parametrize(
    ("signatures", "found"),
    [
        pytest.param([(0, 3, 4)], "time signature 3/4", id="3/4"),
        pytest.param([(0, 1, 4), (960, 4, 4)], "time signature 1/4", id="two bars of 1/4"),
        pytest.param([(0, 5, 4), (2400, 4, 4)], "time signature 5/4", id="a longer bar"),
        pytest.param([(0, 2, 4), (960, 3, 4)], "time signature 2/4", id="a pickup to 3/4"),
    ],
)
def test_a_first_bar_in_another_metre_is_refused(signatures, found):
    with pytest.raises(TimeSignatureError, match=f"^bar 1: found {found}, expected 4/4"):
        song_grid(stretches(*signatures))


def test_an_error_names_the_bar_and_its_metre():
    song = stretches((0, 4, 4), (2 * BAR, 7, 8), (2 * BAR + 1680, 4, 4), (4 * BAR, 4, 4))
    messages = [str(metre_error(song, bar)) for bar in (2, 4)]
    assert messages == [
        "bar 3: found time signature 7/8, expected 4/4",
        "bar 5: found a bar of 0.5 quarters before the next time signature, expected 4/4",
    ]


@pytest.mark.parametrize(
    ("tick", "line"),
    [(0, 0), (959, 0), (960, BAR), (BAR + 1, BAR), (4 * BAR + 700, 4 * BAR), (4 * BAR + 720, 9120)],
)
def test_the_nearest_bar_line_is_found_in_every_metre(tick, line):
    assert nearest_bar_line(stretches((0, 4, 4), (4 * BAR, 3, 4)), tick) == line
