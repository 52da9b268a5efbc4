"""Errors of the command line are one line, of a few lines' length."""

import pytest

from musicvae.terminal import MAX_LENGTH, one_line_errors


def test_a_path_that_the_locale_cannot_express_is_named():
    path = b"gr\xc3\xbcn".decode("ascii", "surrogateescape")  # as LC_ALL=C gives it
    with pytest.raises(SystemExit) as error, one_line_errors("musicvae sample"):
        path.encode("utf-8")
    found = r"musicvae sample: found 'gr\udcc3\udcbcn', expected what the locale's encoding, "
    assert error.value.code.startswith(found)
    assert error.value.code.endswith("can express: set PYTHONUTF8=1")


@pytest.mark.parametrize("message", ["drums " * 1000, "several\nlines\n" * 1000, ""])
def test_a_message_is_one_line_and_not_long(message):
    with pytest.raises(SystemExit) as error, one_line_errors("musicvae sample"):
        raise ValueError(message)
    assert error.value.code.startswith("musicvae sample: ")
    assert "\n" not in error.value.code
    assert len(error.value.code) < MAX_LENGTH + 30
