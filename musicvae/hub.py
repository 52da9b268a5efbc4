"""Repositories of the Hugging Face Hub: opening one, and explaining why that fails."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx2
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
)

LOG_IN = "log in by `hf auth login`, or set HF_TOKEN to a token that may write"
ELSEWHERE, OTHERWISE = "choose another repository", "try again later"
HUB_ERRORS = (OSError, ValueError, RuntimeError, httpx2.TransportError)
ANSWER_SECONDS = 10  # that the Hub has for an answer


class RepositoryError(ValueError):
    """A repository that cannot be reached or written to; the message says what to do."""


class Repository(NamedTuple):
    """A repository that can be written to: its whole name, "user/name", and who sees it."""

    name: str
    private: bool


def open_repository(
    name: str,
    private: bool = False,
    repo_type: str = "model",
    elsewhere: str = ELSEWHERE,
    otherwise: str = OTHERWISE,
) -> Repository:
    """Makes a repository if need be, and makes sure that it can be written to.

    Args:
        name: "user/name", or the name of one of yours.
        private: whether it must be private.
        repo_type: "model" or "dataset".
        elsewhere, otherwise: see `remedy`.

    Raises:
        RepositoryError: it cannot be written to, is public against `private`, or the Hub is not
            there.
    """
    api = HfApi()
    with explained_errors(name, elsewhere, otherwise):
        name = api.create_repo(
            name, repo_type=repo_type, private=private or None, exist_ok=True
        ).repo_id
        api.auth_check(name, repo_type=repo_type, write=True)
        found = Repository(name, bool(api.repo_info(name, repo_type=repo_type).private))
    if private and not found.private:
        raise RepositoryError(
            f"{name}: found a public repository, expected a private one: make it private in its "
            f"settings, or {elsewhere}"
        )
    return found


def ask_for_model(name: str) -> None:
    """Makes sure that the Hub has a model of a name, unless it is in the cache.

    The Hub is asked once: a loader asks, and waits, for each of many files, and again and again.

    Raises:
        RepositoryError: it has none, or gives no answer.
    """
    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    print(f"Asking the Hub for {name}, up to {ANSWER_SECONDS} s", file=sys.stderr, flush=True)
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=ANSWER_SECONDS)
    except HUB_ERRORS as error:
        # Not `from error`: what was sent is in there, and the token with it.
        raise RepositoryError(reason(error)) from None


@contextmanager
def explained_errors(
    repository: str, elsewhere: str = ELSEWHERE, otherwise: str = OTHERWISE
) -> Iterator[None]:
    """Turns errors of the Hub and its client into a `RepositoryError`; see `remedy`."""
    try:
        yield
    except HUB_ERRORS as error:
        # Not `from error`: what was sent is in there, and the token with it.
        advice = remedy(error, elsewhere, otherwise)
        raise RepositoryError(f"{repository}: {reason(error)}: {advice}") from None


def reason(error: Exception) -> str:
    """The cause of an error, without anything that was sent: the token would be in it."""
    if isinstance(error, HfHubHTTPError):
        answer = error.server_message or error.response.reason_phrase
        return f"the Hub answers {error.response.status_code} {answer}"
    if isinstance(error, httpx2.TransportError):
        return f"the Hub cannot be reached ({type(error).__name__})"
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        return reason(error.__cause__)  # the client wraps what goes wrong with large files
    if isinstance(error, UnicodeError):
        return "the token has invalid characters"
    return f"{type(error).__name__}: {error}"


def remedy(error: Exception, elsewhere: str, otherwise: str) -> str:
    """Advice where access is refused.

    Args:
        error: of the Hub or its client.
        elsewhere: how to choose another repository.
        otherwise: what to do where neither that nor another token helps.
    """
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401 or isinstance(error, (LocalTokenNotFoundError, UnicodeError)):
        return LOG_IN
    if isinstance(error, HFValidationError):
        return elsewhere
    return (
        f"use a token that may write there, or {elsewhere}" if status in (403, 404) else otherwise
    )


def is_transient(error: Exception) -> bool:
    """True if the same request may succeed in a while."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return status in (408, 412, 429) or status >= 500
    # The client wraps what goes wrong with large files in a RuntimeError.
    return isinstance(error, (httpx2.TransportError, RuntimeError))
