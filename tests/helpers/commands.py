"""Commands of the command line, run in this process."""

import pytest

from search.cli import main


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Runs a command that must be refused before any compute; what it said."""
    assert main([str(a) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert "pretraining" not in out, "refused only after compute had started"
    return err
