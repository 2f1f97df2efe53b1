import os
import tempfile

import pytest

from keras_mot._files import replacing
from keras_mot.cli import _files
from keras_mot.cli._errors import UsageError
from keras_mot.cli._files import existing_file, output_folder, writable_file


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


def test_replacing_takes_the_place_of_the_old_file(tmp_path):
    path = tmp_path / "small.keras"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".keras"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["small.keras"]


def _fail_while_replacing(path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def test_replacing_leaves_the_old_file_after_an_error(tmp_path):
    path = tmp_path / "small.keras"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        _fail_while_replacing(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["small.keras"]


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
