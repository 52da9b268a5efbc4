"""Trying again, after growing waits, what may work in a while."""

import time
from collections.abc import Callable
from typing import TypeVar

# Seconds before the second attempt, twice as many before each further one, but never more than.
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0

Result = TypeVar("Result")


def retry(
    action: Callable[[], Result], is_transient: Callable[[Exception], bool], attempts: int
) -> Result:
    """Calls `action` until it succeeds, and returns its result.

    Args:
        action: the call that may fail.
        is_transient: True for an error after which the same call may succeed.
        attempts: how often to try at most; the last error is raised, and any that is not transient.
    """
    attempt = 1
    while True:
        try:
            return action()
        except Exception as error:
            if attempt >= attempts or not is_transient(error):
                raise
        time.sleep(min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT))
        attempt += 1
