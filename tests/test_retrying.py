"""Retries after transient errors, with growing waits."""

from collections.abc import Callable

import pytest

from musicvae import retrying
from musicvae.retrying import LONGEST_WAIT, retry


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The waits, which take no time."""
    waits: list[float] = []
    monkeypatch.setattr(retrying.time, "sleep", waits.append)
    return waits


def failing(times: int) -> Callable[[], str]:
    errors = iter([ConnectionError("down")] * times)

    def action() -> str:
        for error in errors:
            raise error
        return "done"

    return action


def is_transient(error: Exception) -> bool:
    return isinstance(error, ConnectionError)


def test_waits_double_up_to_the_longest(waits):
    assert retry(failing(8), is_transient, attempts=9) == "done"
    assert waits == [1, 2, 4, 8, 16, 32, LONGEST_WAIT, LONGEST_WAIT]


def test_the_last_error_is_raised(waits):
    with pytest.raises(ConnectionError, match="down"):
        retry(failing(3), is_transient, attempts=3)
    assert waits == [1, 2]


def test_an_error_that_stays_is_raised_at_once(waits):
    with pytest.raises(ZeroDivisionError):
        retry(lambda: 1 / 0, is_transient, attempts=3)
    assert waits == []
