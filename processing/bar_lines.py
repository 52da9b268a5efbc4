"""Bar lines: where a file's time signatures put them, and which stretches of bars are in 4/4.

A bar of 4/4 is one of four quarters: 2/2 and 8/8 are other names for it. A time signature starts a
bar; where it comes before the bar is over, that bar is cut short and in another metre.
"""

from typing import NamedTuple

from .errors import TimeSignatureError

QUARTERS_PER_BAR = 4
UNLIMITED = 1 << 62  # bars of the last stretch, and its end in ticks


class Stretch(NamedTuple):
    """Bars of one kind, one after another.

    Attributes:
        start, end: in ticks.
        first_bar: how many bars come before.
        num_bars: how many there are.
        bar_ticks: length of a bar in ticks, possibly broken.
        metre: how an error names the kind of bar; None for 4/4.
    """

    start: int
    end: int
    first_bar: int
    num_bars: int
    bar_ticks: float
    metre: str | None


def find_stretches(
    time_signatures: list[tuple[int, int, int]], ticks_per_quarter: int
) -> list[Stretch]:
    """The stretches of a file, the first from tick 0, the last without end.

    Args:
        time_signatures: (tick, numerator, denominator), in time order, the first at tick 0.
        ticks_per_quarter: the file's resolution.
    """
    stretches: list[Stretch] = []
    ends = [tick for tick, _, _ in time_signatures[1:]] + [UNLIMITED]
    for (start, numerator, denominator), end in zip(time_signatures, ends, strict=True):
        bar_ticks = QUARTERS_PER_BAR * ticks_per_quarter * numerator / denominator
        is_four_four = numerator == denominator
        metre = None if is_four_four else f"time signature {numerator}/{denominator}"
        num_bars = UNLIMITED if end == UNLIMITED else int((end - start) / bar_ticks + 1e-9)
        whole_end = end if end == UNLIMITED else start + round(num_bars * bar_ticks)
        _append(stretches, start, whole_end, num_bars, bar_ticks, metre)
        if whole_end < end:
            quarters = (end - whole_end) / ticks_per_quarter
            cut = f"a bar of {quarters:g} quarters before the next time signature"
            _append(stretches, whole_end, end, 1, end - whole_end, cut)
    return stretches


def _append(
    stretches: list[Stretch],
    start: int,
    end: int,
    num_bars: int,
    bar_ticks: float,
    metre: str | None,
) -> None:
    """Adds bars to the last stretch, if they are of its kind, or as a new one."""
    if not num_bars:
        return
    last = stretches[-1] if stretches else None
    if last and last.metre is None and metre is None:
        num_bars = UNLIMITED if num_bars == UNLIMITED else last.num_bars + num_bars
        stretches[-1] = last._replace(end=end, num_bars=num_bars)
    else:
        first_bar = last.first_bar + last.num_bars if last else 0
        stretches.append(Stretch(start, end, first_bar, num_bars, bar_ticks, metre))


def song_grid(stretches: list[Stretch]) -> tuple[int, int]:
    """The tick of the first bar line of a song in 4/4, and how many bars in 4/4 there are.

    A shorter first bar is a pickup: it is the end of a bar that starts before tick 0.

    Raises:
        TimeSignatureError: the first bar is in another metre.
    """
    first, *others = stretches
    if first.metre is None:
        return first.start, first.num_bars
    bar_ticks = others[0].bar_ticks if others and others[0].metre is None else 0
    if first.num_bars > 1 or first.bar_ticks >= bar_ticks:
        raise metre_error(stretches, 0)
    num_bars = others[0].num_bars
    return others[0].start - int(bar_ticks), min(UNLIMITED, num_bars + 1)


def metre_error(stretches: list[Stretch], bar: int) -> TimeSignatureError:
    """The refusal of a bar that is not in 4/4, counted from 0."""
    stretch = next(s for s in reversed(stretches) if s.first_bar <= bar)
    return TimeSignatureError(f"bar {bar + 1}: found {stretch.metre}, expected 4/4")


def nearest_bar_line(stretches: list[Stretch], tick: int) -> int:
    """The tick of the bar line nearest to a tick, of two as near the later."""
    stretch = next(s for s in reversed(stretches) if s.start <= tick)
    bars = int((tick - stretch.start) / stretch.bar_ticks + 0.5)
    return min(stretch.end, stretch.start + round(bars * stretch.bar_ticks))
