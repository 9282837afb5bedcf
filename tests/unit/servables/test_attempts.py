"""What a server did not survive is not tried again."""

import os
import subprocess
import sys

import pytest

from servingd.servables.saved_model.optimise.attempts import Attempts

ENDS = """
import os, sys
from pathlib import Path
from servingd.servables.saved_model.optimise.attempts import Attempts
with Attempts(Path(sys.argv[1])).during("model", "/models/m/1"):
    os.abort()
"""


def test_nothing_is_left_of_an_attempt_that_ends(tmp_path):
    attempts = Attempts(tmp_path)
    with attempts.during("model", "/models/m/1"):
        assert len(os.listdir(tmp_path)) == 1
    with pytest.raises(ValueError, match="boom"), attempts.during("model", "/models/m/1"):
        raise ValueError("boom")
    assert os.listdir(tmp_path) == []


def test_an_attempt_that_is_under_way_is_not_fatal(tmp_path):
    attempts = Attempts(tmp_path)
    with attempts.during("model", "/models/m/1"):
        assert attempts.fatal("model") is None


def test_an_attempt_that_ended_a_server_is_fatal_until_its_file_is_removed(tmp_path):
    subprocess.run([sys.executable, "-c", ENDS, tmp_path], check=False)
    fatal = Attempts(tmp_path).fatal("model")
    assert fatal is not None
    assert fatal.read_text() == "/models/m/1"
    assert Attempts(tmp_path).fatal("other") is None
    fatal.unlink()
    assert Attempts(tmp_path).fatal("model") is None


def test_an_attempt_is_not_to_blame_for_a_stop(tmp_path):
    attempts = Attempts(tmp_path)
    with attempts.during("model", "/models/m/1"):
        attempts.forget()
        assert os.listdir(tmp_path) == []


def test_without_a_folder_nothing_is_remembered():
    attempts = Attempts(None)
    with attempts.during("model", "/models/m/1"):
        assert attempts.fatal("model") is None


def test_a_folder_that_cannot_be_written_does_not_matter(tmp_path):
    with Attempts(tmp_path / "absent").during("model", "/models/m/1"):
        pass
