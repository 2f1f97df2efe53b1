"""`.npz` files from elsewhere: nothing is unpickled, and no more is read than the file's size tells."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from keras_mot import _archives
from keras_mot.cli._archive import open_arrays
from keras_mot.cli._data import load_data
from keras_mot.cli._errors import UsageError

pytestmark = pytest.mark.backend_independent

X, Y = np.arange(12.0).reshape(4, 3), np.zeros(4, "int32")


def saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.fixture
def refused(tmp_path):
    """Writes `x_train` as given, and returns with which error the file is refused."""

    def refused(content, compression=zipfile.ZIP_STORED):
        path = tmp_path / "hostile.npz"
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("x_train.npy", content)
            archive.writestr("y_train.npy", saved(Y))
        with pytest.raises(UsageError, match=r"hostile\.npz") as caught:
            load_data(path)
        return str(caught.value)

    return refused


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("array", [X, np.asfortranarray(X), Y.astype("uint8"), np.zeros((0, 3)), np.float32(1)])
def test_arrays_are_as_they_were_saved(tmp_path, save, array):
    save(tmp_path / "arrays.npz", given=array, other=X)
    with open_arrays(tmp_path / "arrays.npz") as arrays:
        assert sorted(arrays.files) == ["given", "other"]
        np.testing.assert_array_equal(arrays["given"], array)
        assert arrays["given"].dtype == array.dtype


class Attack:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


def test_pickled_arrays_are_not_opened(refused, tmp_path):
    marker = tmp_path / "has_run"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    assert "holds Python objects" in refused(header.getvalue() + pickle.dumps(Attack(marker)))
    assert not marker.exists()


def test_arrays_that_grow_too_much(refused, monkeypatch, tmp_path):
    monkeypatch.setattr(_archives, "_ALWAYS_READ", 2**20)
    zeros = np.zeros((4, 2**18))
    message = refused(saved(zeros), compression=zipfile.ZIP_DEFLATED)
    assert "'x_train.npy' says to hold 8,388,736 bytes" in message
    assert "write it without compression" in message
    np.savez(tmp_path / "stored.npz", x_train=zeros, y_train=Y)
    assert load_data(tmp_path / "stored.npz").x.shape == zeros.shape


def test_arrays_that_do_not_fit_into_the_memory(refused, monkeypatch):
    monkeypatch.setattr(_archives, "available_bytes", lambda: 100)
    assert "100 bytes of memory are available" in refused(saved(X))


def header(text):
    content = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {text}, }}".encode()
    return b"\x93NUMPY\x02\x00" + len(content).to_bytes(4, "little") + content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("(1000000000000, 1000)") + bytes(48), "has 4,000,000,000,000,000 bytes"),
        (header("(-4, 3)") + bytes(48), r"has the shape (-4, 3)"),
        (header("__import__('os')") + bytes(48), "its header is not one"),
        (header("(" + "4, " * 10_000 + ")"), "its header is not one"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "its header is not one"),
        (saved(X)[:-1], "has 96 bytes, of shape (4, 3); 95 are there"),
        (b"", "its header is not one"),
    ],
    ids=["huge", "negative", "code", "endless", "unknown version", "cut", "empty"],
)
def test_headers(refused, content, message):
    assert message in refused(content)


def test_an_array_twice(tmp_path):
    path = tmp_path / "twice.npz"
    np.savez(path, x_train=X, y_train=Y)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x_train.npy", saved(X + 1))
    with pytest.raises(
        UsageError, match=r"twice\.npz' cannot be read: it holds the member 'x_train\.npy' more than once"
    ):
        load_data(path)


def test_an_encrypted_array(tmp_path):
    path = tmp_path / "encrypted.npz"
    np.savez(path, x_train=X, y_train=Y)
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"its member 'x_train\.npy' is encrypted"):
        load_data(path)
