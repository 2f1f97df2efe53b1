import zipfile

import keras
import pytest

from keras_mot._keras_files import damage


@pytest.fixture
def saved(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(50)])
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_a_whole_file(saved):
    assert damage(saved) is None


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7])
def test_a_changed_byte(saved, place):
    content = bytearray(saved.read_bytes())
    content[int(place * len(content))] ^= 0x10
    saved.write_bytes(content)
    assert "with a wrong checksum" in damage(saved)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_part_of_a_file(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    assert "zip archive" in damage(saved)


@pytest.mark.parametrize("missing", ["config.json", "model.weights.h5"])
def test_a_missing_member(saved, missing, tmp_path):
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(tmp_path / "less.keras", "w") as target:
        for name in source.namelist():
            if name != missing:
                target.writestr(name, source.read(name))
    assert "lacks" in damage(tmp_path / "less.keras")
    assert missing in damage(tmp_path / "less.keras")
