import os
import signal
import subprocess
import sys

import pytest

from keras_mot import _lock
from keras_mot._lock import locked

pytestmark = pytest.mark.backend_independent

HOLD = """
import pathlib, sys, time
from keras_mot._lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder until it is told to go on, or is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_is_held_by_one(tmp_path):
    with locked(tmp_path):
        with (
            pytest.raises(ValueError, match=f"in use by another run: process {os.getpid()} on .*, since 20"),
            locked(tmp_path),
        ):
            pass
        assert os.listdir(tmp_path) == [_lock.NAME]
    assert os.listdir(tmp_path) == []
    with locked(tmp_path):
        pass


def test_another_process(holder, tmp_path):
    with pytest.raises(ValueError, match=f"in use by another run: process {holder.pid} on "), locked(tmp_path):
        pass
    holder.communicate()
    with locked(tmp_path):
        pass


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_a_killed_process_holds_nothing(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert os.listdir(tmp_path) == [_lock.NAME]
    with locked(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / _lock.NAME).read_text()
    assert os.listdir(tmp_path) == []


def test_an_error_frees_the_folder(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    with locked(tmp_path):
        pass


@pytest.mark.skipif(_lock.fcntl is None, reason="of POSIX systems")
def test_file_systems_without_locks(tmp_path, monkeypatch):
    def flock(*args):
        raise OSError(_lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_lock.fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="has no locks .*no two runs"), locked(tmp_path):
        pass


def test_a_lock_that_cannot_be_made(tmp_path):
    (tmp_path / _lock.NAME).mkdir()
    with pytest.raises(ValueError, match=r"The lock '.*run\.lock' cannot be made"), locked(tmp_path):
        pass
