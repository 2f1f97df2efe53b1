import os
import tempfile

import pytest

from keras_mot._lock import locked
from keras_mot.cli import _files
from keras_mot.cli._errors import UsageError
from keras_mot.cli._files import existing_file, output_folder, writable_file

pytestmark = pytest.mark.backend_independent


def _refuse_to_write(monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"no\.keras' does not exist; expected a `\.keras` file"):
        existing_file(tmp_path / "no.keras", "a `.keras` file")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        existing_file(tmp_path, "a `.keras` file")
    with pytest.raises(UsageError, match="is a folder; name a file"):
        writable_file(tmp_path)


def test_output_in_a_missing_folder(tmp_path):
    with pytest.raises(UsageError, match=r"folder '.*nowhere' of the output does not exist"):
        writable_file(tmp_path / "nowhere" / "small.keras")


def test_output_in_a_folder_without_permission(tmp_path, monkeypatch):
    _refuse_to_write(monkeypatch)
    with pytest.raises(UsageError, match="cannot be written to: Permission denied"):
        writable_file(tmp_path / "small.keras")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write everywhere")
def test_output_in_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UsageError, match="cannot be written to"):
            writable_file(tmp_path / "small.keras")
    finally:
        tmp_path.chmod(0o700)


def test_output_folder_keeps_what_was_finished(tmp_path):
    (tmp_path / "other").write_text("stays")
    with output_folder(tmp_path) as folder:
        (folder / "report.json").write_text("{}")
        assert not (tmp_path / "report.json").exists()
    assert sorted(os.listdir(tmp_path)) == ["other", "report.json"]


def _fail_in_folder(path):
    with output_folder(path) as folder:
        (folder / "report.json").write_text("{")
        raise RuntimeError


def test_output_folder_leaves_nothing_after_an_error(tmp_path):
    with pytest.raises(RuntimeError):
        _fail_in_folder(tmp_path / "new")
    with pytest.raises(RuntimeError):
        _fail_in_folder(tmp_path)
    assert os.listdir(tmp_path) == []


def test_no_output_folder_keeps_nothing():
    with output_folder(None) as folder:
        (folder / "file").write_text("")
    assert not folder.exists()


def test_output_folders_that_cannot_be(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file; expected a folder"), output_folder(tmp_path / "file"):
        pass
    with pytest.raises(UsageError, match="does not exist"), output_folder(tmp_path / "no" / "where"):
        pass
    _refuse_to_write(monkeypatch)
    with pytest.raises(UsageError, match="cannot be written to"), output_folder(tmp_path / "new"):
        pass
    assert os.listdir(tmp_path) == ["file"]
    assert _files.tempfile is tempfile


@pytest.mark.skipif(os.name == "nt", reason="of POSIX systems")
def test_outputs_that_are_no_files(tmp_path):
    with pytest.raises(UsageError, match="is a device; name a file"):
        writable_file("/dev/null", ".keras")
    with pytest.raises(UsageError, match="is too long for the file system"):
        writable_file(tmp_path / f"{'n' * 260}.keras")


def test_names_that_commands_write(tmp_path):
    assert writable_file(tmp_path / "small.tflite", ".keras", ".tflite")
    with pytest.raises(UsageError, match=r"should end in \.keras or \.tflite"):
        writable_file(tmp_path / "small.KERAS", ".keras", ".tflite")


def test_an_output_folder_with_files_of_others(tmp_path):
    (tmp_path / "recipe.yaml").write_text("own")
    for report in (None, '{"recipe": "mine"}', "[[", "[]"):
        if report is not None:
            (tmp_path / "report.json").write_text(report)
        message = r"holds 'recipe\.yaml', which would be replaced: name another folder"
        with pytest.raises(UsageError, match=message), output_folder(tmp_path, ("recipe.yaml",), "demo"):
            pass
    (tmp_path / "report.json").write_text('{"recipe": "demo"}')
    with output_folder(tmp_path, ("recipe.yaml",), "demo") as folder:
        (folder / "recipe.yaml").write_text("new")
    assert (tmp_path / "recipe.yaml").read_text() == "new"


def test_an_output_folder_in_use(tmp_path):
    with locked(tmp_path), pytest.raises(UsageError, match="is in use by another run"), output_folder(tmp_path):
        pass


def test_what_a_killed_command_left_in_an_output_folder(tmp_path):
    (tmp_path / f"{_files._UNFINISHED}abc").mkdir()
    with output_folder(tmp_path):
        pass
    assert os.listdir(tmp_path) == []
