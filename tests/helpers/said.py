"""What a command that failed has said."""

import pytest


def error_line(capsys: pytest.CaptureFixture[str], status: int) -> str:
    """The one line on stderr, without "error: ", of a command that ended with `status`, 2."""
    assert status == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")
