"""What may be written where: rules that every writer of the package goes through."""

import contextlib
import os
import pathlib
import socket
import stat

import pytest

from keras_mot._files import (
    is_left_over,
    is_temporary,
    replacing,
    writable_file,
    writable_folder,
    write_bytes,
    write_text,
)

pytestmark = pytest.mark.backend_independent

LITERT = (".tflite", ".lite")
needs_links = pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege")
posix = pytest.mark.skipif(os.name == "nt", reason="of POSIX file systems")


@pytest.mark.parametrize("name", ["m.tflite", "m.TFLITE", "m.lite", "m", "m.bin", "m.v1.2", "with space.tflite"])
def test_names_that_are_taken(name, tmp_path):
    assert writable_file(tmp_path / name, LITERT) == tmp_path / name
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mine.keras", "a Keras model"),
        ("mine.KERAS", "a Keras model"),
        ("mine.h5", "a Keras model"),
        ("mine.onnx", "an ONNX model"),
        ("data.npz", "arrays"),
        ("recipe.yaml", "YAML"),
        ("run.json", "JSON"),
        ("train.py", "a program"),
        ("notes.txt", "text"),
        ("all.zip", "an archive"),
    ],
)
def test_names_of_other_formats(name, kind, tmp_path):
    with pytest.raises(ValueError, match=rf"has the suffix of {kind}; expected \.tflite or \.lite, such as"):
        writable_file(tmp_path / name, LITERT)


def test_each_format_has_its_suffix(tmp_path):
    assert writable_file(tmp_path / "recipe.yml", (".yaml", ".yml"))
    with pytest.raises(ValueError, match=r"of a LiteRT file; expected .yaml"):
        writable_file(tmp_path / "small.tflite", (".yaml",))
    with pytest.raises(ValueError, match=r"should end in .keras"):
        writable_file(tmp_path / "small", (".keras",), exact=True)


@pytest.mark.parametrize("path", [3, None, b"m.tflite", ["m.tflite"]])
def test_what_is_no_path(path):
    with pytest.raises(TypeError, match=r"must be the path of the file to write"):
        writable_file(path)


def test_a_null_character_is_no_part_of_a_path(tmp_path):
    with pytest.raises(ValueError, match=r"is no path"):
        writable_file(f"{tmp_path}/a\0b.tflite")
    with pytest.raises(ValueError, match=r"is no path"):
        writable_folder(f"{tmp_path}/a\0b")


@posix
def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(tmp_path):
        server.bind("socket")
    for path, kind in ((tmp_path / "pipe", "a pipe"), (tmp_path / "socket", "a socket"), ("/dev/null", "a device")):
        before = os.stat(path).st_mode
        with pytest.raises(ValueError, match=f"is {kind}; name a file"):
            writable_file(path, LITERT)
        with pytest.raises(ValueError, match=f"is {kind}; expected a folder"):
            writable_folder(path)
        assert os.stat(path).st_mode == before
    with pytest.raises(ValueError, match=r"is a folder; name a file, such as .*small.tflite"):
        writable_file(tmp_path, LITERT)
    with pytest.raises(ValueError, match=r"The folder '.*pipe' of the output does not exist"):
        writable_file(tmp_path / "pipe" / "m.tflite")


@needs_links
def test_links_are_written_through(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "model.tflite").write_text("old")
    link = tmp_path / "latest.tflite"
    link.symlink_to(pathlib.Path("store") / "model.tflite")
    assert writable_file(link, LITERT) == link
    write_text(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "store" / "model.tflite").read_text() == "new"
    assert os.listdir(tmp_path / "store") == ["model.tflite"]
    write_text(link, "own", owned=True)
    assert not link.is_symlink()
    assert (tmp_path / "store" / "model.tflite").read_text() == "new"


@needs_links
def test_links_that_lead_nowhere(tmp_path):
    link = tmp_path / "link.tflite"
    link.symlink_to(tmp_path / "target.tflite")
    write_bytes(writable_file(link, LITERT), b"new")
    assert link.is_symlink()
    assert (tmp_path / "target.tflite").read_bytes() == b"new"
    link.unlink()
    link.symlink_to(tmp_path / "gone" / "target.tflite")
    with pytest.raises(ValueError, match=r"symbolic link to '.*'\. The folder '.*gone' of the output does not exist"):
        writable_file(link, LITERT)
    (tmp_path / "loop.tflite").symlink_to(tmp_path / "loop.tflite")
    with pytest.raises(ValueError, match=r"leads back to itself"):
        writable_file(tmp_path / "loop.tflite", LITERT)


@needs_links
def test_a_link_does_not_hide_another_format_or_a_device(tmp_path):
    (tmp_path / "mine.keras").write_text("precious")
    (tmp_path / "m.tflite").symlink_to(tmp_path / "mine.keras")
    with pytest.raises(ValueError, match=r"has the suffix of a Keras model"):
        writable_file(tmp_path / "m.tflite", LITERT)
    (tmp_path / "n.tflite").symlink_to("/dev/null")
    with pytest.raises(ValueError, match=r"is a device"):
        writable_file(tmp_path / "n.tflite", LITERT)


@posix
def test_long_names(tmp_path):
    path = tmp_path / ("n" * 238 + ".tflite")
    write_bytes(writable_file(path, LITERT), b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(ValueError, match=r"is too long for the file system \(307 bytes\): choose a shorter one"):
        writable_file(tmp_path / ("n" * 300 + ".tflite"), LITERT)
    with pytest.raises(ValueError, match=r"is too long"):
        writable_folder(tmp_path / ("n" * 300))
    with replacing(tmp_path / ("n." + "s" * 250)) as temporary:
        temporary.write_text("")
    assert len(os.listdir(tmp_path)) == 2


@posix
def test_permissions_and_hard_links(tmp_path):
    path, other = tmp_path / "m.tflite", tmp_path / "other"
    path.write_text("old")
    path.chmod(0o640)
    os.link(path, other)
    write_text(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (path.read_text(), other.read_text()) == ("new", "old")
    fresh = tmp_path / "fresh"
    plain = tmp_path / "plain"
    write_text(fresh, "")
    plain.write_text("")
    assert fresh.stat().st_mode == plain.stat().st_mode


def test_write_protected_files(tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    path.write_text("old")
    monkeypatch.setattr(os, "access", lambda *args, **kwargs: False)  # of root, permission bits ask nothing
    with pytest.raises(ValueError, match=r"is write-protected"):
        writable_file(path, LITERT)


@posix
def test_a_file_that_the_disk_has_no_room_for(tmp_path):
    import resource

    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*m\.tflite'"):
            write_bytes(path, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.tflite"]


@needs_links
def test_folders(tmp_path):
    assert writable_folder(tmp_path / "a" / "b", parents=True).is_dir()
    with pytest.raises(ValueError, match=r"The folder '.*c' of the output does not exist"):
        writable_folder(tmp_path / "c" / "d")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert writable_folder(tmp_path / "link")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"is a symbolic link to '.*nowhere', which does not exist"):
        writable_folder(tmp_path / "dangling")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"is a file; expected a folder"):
        writable_folder(tmp_path / "file")
    with pytest.raises(ValueError, match=r"cannot be made: Not a directory"):
        writable_folder(tmp_path / "file" / "run", parents=True)
    with pytest.raises(TypeError, match=r"must be given as a path"):
        writable_folder(3)


def test_replacing_takes_the_place_of_the_old_file(tmp_path):
    path = tmp_path / "small.keras"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".keras"
        assert is_temporary(temporary.name)
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["small.keras"]
    assert not is_temporary(path.name)


def test_a_temporary_path_is_written_as_it_is(tmp_path):
    path = tmp_path / "small.keras"
    with replacing(path, owned=True) as temporary:
        assert is_left_over(temporary.name)
        write_text(temporary, "new")
        assert os.listdir(tmp_path) == [temporary.name]
    assert path.read_text() == "new"


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
