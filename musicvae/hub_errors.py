"""What to tell of an error of the Hugging Face Hub or its client."""

import httpx2
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

LOG_IN = "log in by `hf auth login`, or set HF_TOKEN to a token that may write"


def reason(error: Exception) -> str:
    """What went wrong, without anything that was sent: the token would be in it."""
    if isinstance(error, HfHubHTTPError):
        answer = error.server_message or error.response.reason_phrase
        return f"the Hub answers {error.response.status_code} {answer}"
    if isinstance(error, httpx2.TransportError):
        return f"the Hub cannot be reached ({type(error).__name__})"
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        return reason(error.__cause__)  # the client wraps what goes wrong with large files
    if isinstance(error, UnicodeError):
        return "the token has characters that none has"
    return f"{type(error).__name__}: {error}"


def remedy(error: Exception, elsewhere: str, otherwise: str) -> str:
    """What to do where access is refused.

    Args:
        error: of the Hub or its client.
        elsewhere: how to choose another repository.
        otherwise: what to do where neither that nor another token helps.
    """
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401 or isinstance(error, (LocalTokenNotFoundError, UnicodeError)):
        return LOG_IN
    return (
        f"use a token that may write there, or {elsewhere}" if status in (403, 404) else otherwise
    )
