"""Damaged and hostile `.keras` files, given to `keras-mot inspect` and to `keras_mot.analysis.sparsity`."""

import base64
import io
import json
import marshal
import zipfile

import h5py
import numpy as np
from _attacks_common import called, commanded, rewritten, tiny_model

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"


def keras_files(scratch, seed):
    """32 files; each is refused with an error, or loaded where nothing that counts is missing."""
    import keras_mot

    good = scratch / "good.keras"
    tiny_model().save(good)
    marker = scratch / "code_has_run"
    for number, (case, make) in enumerate(_cases(good, marker).items()):
        path = scratch / f"{number}.keras"
        path = make(path) or path
        refusal = not case.startswith("may load: ")
        problem = commanded(["inspect", path], refusal)
        problem = problem or called(lambda path=path: keras_mot.analysis.sparsity(path), refusal)
        if marker.exists():
            problem = "code from the file has run"
        if path.is_file():
            path.unlink()
        yield case, problem


def _cases(good, marker):
    content = good.read_bytes()
    with zipfile.ZipFile(good) as archive:
        config, weights = archive.read(_CONFIG), archive.read(_WEIGHTS)
        starts = {item.filename: item.header_offset for item in archive.infolist()}

    def with_config(text):
        return lambda path: rewritten(good, path, {_CONFIG: text}) and None

    def with_weights(make):
        return lambda path: rewritten(good, path, {_WEIGHTS: make()}) and None

    def flipped(start, count=8):
        return lambda path: _flip(content, path, start, count)

    def cut(share):
        return lambda path: path.write_bytes(content[: int(share * len(content))]) and None

    return {
        "empty": lambda path: path.write_bytes(b"") and None,
        "text": lambda path: path.write_text("not a model, but a text") and None,
        "a folder": lambda path: path.mkdir(),
        "a tenth of it": cut(0.1),
        "half of it": cut(0.5),
        "all but the end": cut(0.99),
        "bytes of the configuration flipped": flipped(starts[_CONFIG] + 200),
        "bytes of the weights flipped": flipped(starts[_WEIGHTS] + 6000),
        "bytes of a header flipped": flipped(starts[_WEIGHTS] + 26),
        "bytes of the list of members flipped": flipped(len(content) - 100),
        "no configuration": lambda path: rewritten(good, path, drop=[_CONFIG]) and None,
        "no weights": lambda path: rewritten(good, path, drop=[_WEIGHTS]) and None,
        "may load: no metadata": lambda path: rewritten(good, path, drop=["metadata.json"]) and None,
        "a member twice": lambda path: _twice(good, path),
        "an encrypted member": lambda path: _encrypted(content, path),
        "a configuration that is no JSON": with_config(b"{" + config),
        "a configuration in latin-1": with_config(config.replace(b"tiny", "tïny".encode("latin-1"))),
        "a configuration that is a list": with_config(b"[" + config + b"]"),
        "a configuration of other words": with_config(b'{"model": {"layers": [1, 2, 3]}}'),
        "a configuration nested 100,000 deep": with_config(b"[" * 100_000 + b"]" * 100_000),
        "models in models, 300 deep": with_config(_nested_models(config)),
        "a gigabyte of blanks": lambda path: _blanks(good, path),
        "an optimizer instead of a model": with_config(_object("keras.optimizers", "Adam", {"learning_rate": 0.1})),
        "a class that nobody knows": with_config(_object("nowhere", "Nothing", {})),
        "a function of the system": with_config(_object("os", "system", {"command": f"touch {marker}"})),
        "a Lambda with code": with_config(_code(config, marker)),
        "a layer of a billion units": with_config(config.replace(b'"units": 16', b'"units": 1000000000')),
        "weights of another model": with_config(config.replace(b'"units": 16', b'"units": 17')),
        "weights of 3 GB of zeros": lambda path: _zeros(good, path),
        "weights that declare 3 GB": with_weights(lambda: _declared(weights)),
        "weights that refer to another file": with_weights(lambda: _linked(weights)),
        "weights whose groups go in circles": with_weights(lambda: _circles(weights)),
    }


def _flip(content, path, start, count):
    damaged = bytearray(content)
    for place in range(start, min(start + count, len(damaged))):
        damaged[place] ^= 0xFF
    path.write_bytes(damaged)


def _twice(good, path):
    rewritten(good, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(_CONFIG, b"{}")


def _encrypted(content, path):
    damaged = bytearray(content)
    place = damaged.find(b"PK\x01\x02")
    while place >= 0:
        damaged[place + 8] |= 1
        place = damaged.find(b"PK\x01\x02", place + 4)
    path.write_bytes(damaged)


def _blanks(good, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(_CONFIG, "w") as member:
        for _ in range(1024):
            member.write(b" " * 2**20)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "a") as archive:
        archive.writestr(_WEIGHTS, source.read(_WEIGHTS))


def _zeros(good, path):
    rewritten(good, path, drop=[_WEIGHTS])
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open(_WEIGHTS, "w", force_zip64=True) as member,
    ):
        for _ in range(3 * 1024):
            member.write(bytes(2**20))


def _object(module, name, config):
    return json.dumps({"module": module, "class_name": name, "config": config, "registered_name": name}).encode()


def _nested_models(config):
    inner = json.loads(config)
    for depth in range(300):
        outer = json.loads(config)
        outer["config"]["name"] = f"outer_{depth}"
        outer["config"]["layers"] = [inner]
        inner = outer
    return json.dumps(inner).encode()


def _code(config, marker):
    code = compile(f"open({str(marker)!r}, 'w').close()", "<attack>", "eval")
    value = base64.b64encode(marshal.dumps(code)).decode()
    function = {"class_name": "__lambda__", "config": {"code": value, "defaults": None, "closure": None}}
    model = json.loads(config)
    model["config"]["layers"].append(
        {
            "module": "keras.layers",
            "class_name": "Lambda",
            "config": {"name": "attack", "function": function},
            "registered_name": None,
        }
    )
    return json.dumps(model).encode()


def _changed(weights, change):
    buffer = io.BytesIO(weights)
    with h5py.File(buffer, "a") as file:
        group = next(group for group in file["layers"].values() if "0" in group.get("vars", {}))
        change(file, group["vars"])
    return buffer.getvalue()


def _declared(weights):
    def change(file, variables):
        del variables["0"]
        variables.create_dataset("0", (3, 2**28), np.float32, chunks=(1, 2**16), compression="gzip")

    return _changed(weights, change)


def _linked(weights):
    def change(file, variables):
        del variables["0"]
        variables["0"] = h5py.ExternalLink("/etc/hostname", "/data")

    return _changed(weights, change)


def _circles(weights):
    def change(file, variables):
        file["layers"]["circle"] = file["layers"]

    return _changed(weights, change)
