"""`.keras` files from elsewhere: refused with an error that names what is wrong, in bounded memory, running no code."""

import base64
import io
import json
import marshal
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_mot import _archives, _weights_files
from keras_mot._model_files import check_model_file, load_model_file
from keras_mot.analysis import sparsity

CONFIG, WEIGHTS = "config.json", "model.weights.h5"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    layers = [keras.layers.Dense(16, activation="relu", name="hidden"), keras.layers.Dense(4, name="classes")]
    path = tmp_path_factory.mktemp("good") / "good.keras"
    keras.Sequential([keras.Input((8,)), *layers], name="small").save(path)
    return path


@pytest.fixture
def member(good):
    with zipfile.ZipFile(good) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def refused(tmp_path, member):
    """Writes a file of members, some of them changed, and returns with which error it is refused."""

    def refused(changes=(), drop=(), compression=zipfile.ZIP_STORED):
        path = tmp_path / "hostile.keras"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in {**member, **dict(changes)}.items():
                if name not in drop:
                    archive.writestr(name, content)
        with pytest.raises(ValueError, match=r"hostile\.keras") as caught:
            load_model_file(path)
        with pytest.raises(ValueError, match=r"hostile\.keras"):
            sparsity(path)
        return str(caught.value)

    return refused


def test_a_good_file_loads(good):
    check_model_file(good)
    model = load_model_file(good)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model.layers[0].kernel),
        keras.ops.convert_to_numpy(keras.models.load_model(good).layers[0].kernel),
    )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files(good, tmp_path, share):
    content = good.read_bytes()
    path = tmp_path / "cut.keras"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"'.*cut\.keras' is damaged, or not a `\.keras` file"):
        check_model_file(path)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_flipped_bytes_are_not_blamed_on_layers(good, tmp_path, name):
    content = bytearray(good.read_bytes())
    with zipfile.ZipFile(good) as archive:
        start = archive.getinfo(name).header_offset + 100
    content[start + 100] ^= 0xFF
    path = tmp_path / "flipped.keras"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"its member '{name}' is damaged") as caught:
        load_model_file(path)
    assert "classes" not in str(caught.value)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_missing_members(refused, name):
    assert f"it lacks '{name}'" in refused(drop=[name])


def test_missing_files(tmp_path):
    with pytest.raises(ValueError, match="which is not a file"):
        check_model_file(tmp_path / "no.keras")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"{", "not JSON"),
        (b'{"class_name": "\xff"}', "not JSON"),
        (b"[1]", "not that of a Keras model"),
        (b'{"model_config": {}}', "not that of a Keras model"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b" " * (2**26 + 1), "its configuration has 67,108,865 bytes"),
    ],
    ids=["open", "latin-1", "a list", "another format", "nested", "blanks"],
)
def test_configurations_that_are_none(refused, config, message):
    assert message in refused({CONFIG: config}, compression=zipfile.ZIP_DEFLATED)


def described(module, name, config):
    return json.dumps({"module": module, "class_name": name, "config": config, "registered_name": None}).encode()


def test_what_is_not_a_model(refused):
    message = refused({CONFIG: described("keras.optimizers", "SGD", {"learning_rate": 0.1})})
    assert "holds no Keras model, but an object of the class SGD" in message


def test_classes_of_others_are_named(refused):
    message = refused({CONFIG: described("their.module", "TheirModel", {})})
    assert "classes that are not Keras's: TheirModel" in message
    assert "custom_objects" in message


def test_no_code_runs(refused, member, tmp_path):
    marker = tmp_path / "has_run"
    code = marshal.dumps(compile(f"open({str(marker)!r}, 'w')", "<file>", "eval"))
    function = {"class_name": "__lambda__", "config": {"code": base64.b64encode(code).decode(), "defaults": None}}
    layer = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": function}}
    model = json.loads(member[CONFIG])
    model["config"]["layers"].append(layer)
    refused({CONFIG: json.dumps(model)})
    refused({CONFIG: described("os", "system", {"command": f"touch {marker}"})})
    assert not marker.exists()


def test_a_configuration_asks_for_no_more_than_the_file_holds(refused, member):
    """16 TB of weights, which are not there, are not made first."""
    config = member[CONFIG].replace(b'"units": 16', b'"units": 1000000000000')
    assert "asks for more weights than the file holds" in refused({CONFIG: config})
    assert keras.layers.Layer.add_weight.__qualname__ == "Layer.add_weight"


def test_members_that_grow_too_much(refused, monkeypatch):
    monkeypatch.setattr(_archives, "_ALWAYS_READ", 2**20)
    message = refused({WEIGHTS: bytes(2**22)}, compression=zipfile.ZIP_DEFLATED)
    assert f"'{WEIGHTS}' says to hold 4,194,304 bytes" in message


def test_more_than_the_memory(refused, monkeypatch):
    monkeypatch.setattr(_archives, "available_bytes", lambda: 1000)
    assert "1,000 bytes of memory are available" in refused()


def changed(weights, change):
    buffer = io.BytesIO(weights)
    with h5py.File(buffer, "a") as file:
        variables = next(group["vars"] for group in file["layers"].values() if "0" in group["vars"])
        del variables["0"]
        change(file, variables)
    return buffer.getvalue()


def declare_much(file, variables):
    variables.create_dataset("0", (2**20, 2**10), np.float32, chunks=(2**10, 2**6))


def refer_elsewhere(file, variables):
    variables["0"] = h5py.ExternalLink("other.h5", "/data")


def go_in_circles(file, variables):
    variables["0"] = file["layers"]


def go_deep(file, variables):
    variables.create_group("/".join("0" * 200))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (declare_much, "would take 4,294,967,296 bytes, of which the file stores 0"),
        (refer_elsewhere, "refer to another place with '0'"),
        (go_in_circles, "too deep, or in circles"),
        (go_deep, "too deep, or in circles"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_weights_that_are_not_what_they_seem(refused, member, monkeypatch, change, message):
    monkeypatch.setattr(_weights_files, "_MOST_OBJECTS", 2000)
    assert message in refused({WEIGHTS: changed(member[WEIGHTS], change)})


def test_weights_that_are_damaged(refused, member):
    assert "its weights are damaged" in refused({WEIGHTS: b"not HDF5"})
    assert "its weights are damaged" in refused({WEIGHTS: member[WEIGHTS][:2000]})
