"""The engine for the JAX and PyTorch backends: converts in a child process whose backend is TensorFlow.

One process can hold one Keras backend only. The model travels as a saved `.keras` file.
"""

import dataclasses
import importlib.util
import json
import pathlib
import tempfile

import keras

from keras_mot._keras import flatten_layers
from keras_mot.export.litert.engines import kept_child
from keras_mot.export.litert.engines.conversion import Conversion, UnsupportedOperationError

_WAY_OUT = (
    "Either define it in a module that can be imported, decorated with "
    "`@keras.saving.register_keras_serializable()`, or run the export with KERAS_BACKEND=tensorflow."
)


def convert_in_child(model, signature, request):
    """Converts `model` as the `ConversionRequest` says, in a child process; returns a `Conversion`."""
    classes = custom_classes(model)
    task = {
        "modules": list(dict.fromkeys(kind.__module__ for kind in classes)),
        "floatx": keras.config.floatx(),
        "image_data_format": keras.config.image_data_format(),
        "inputs": [[tensor.name, tensor.shape, tensor.dtype] for tensor in signature.inputs],
        "arguments": signature.arguments,
        "request": dataclasses.asdict(request),
    }
    with tempfile.TemporaryDirectory(prefix="keras_mot_export_") as directory:
        directory = pathlib.Path(directory)
        _save(model, directory / "model.keras")
        (directory / "task.json").write_text(json.dumps(task))
        kept_child.run(directory, classes)
        answer = json.loads((directory / "answer.json").read_text())
        if "error" in answer:
            raise (UnsupportedOperationError if answer["unsupported"] else ValueError)(answer["error"])
        return Conversion(
            dense=_read_if_written(directory / "dense.tflite"),
            sparse=_read_if_written(directory / "sparse.tflite"),
            sparse_failure=answer["sparse_failure"],
            batch_size=answer["batch_size"],
            output_names=tuple(answer["output_names"]),
            open_failure=answer["open_failure"],
        )


def _read_if_written(path):
    return path.read_bytes() if path.is_file() else None


def custom_classes(model):
    """The model's own classes, whose modules the child process must import.

    Raises:
        ValueError: A class cannot be found by importing a module.
    """
    classes = []
    for layer in flatten_layers(model):
        kind = type(layer)
        if kind.__module__.split(".")[0] == "keras":
            continue
        _check_importable(kind, layer)
        if kind not in classes:
            classes.append(kind)
    return classes


def _check_importable(kind, layer):
    where = f"The layer '{layer.path}' is of the class '{kind.__qualname__}', which"
    if kind.__module__ == "__main__":
        raise ValueError(
            f"{where} is defined in the main script. On the {keras.backend.backend()} backend the export "
            f"converts in a second process, which cannot import it from there. {_WAY_OUT}"
        )
    if "<locals>" in kind.__qualname__:
        raise ValueError(
            f"{where} is defined inside a function of '{kind.__module__}'. On the {keras.backend.backend()} "
            f"backend the export converts in a second process, which cannot import it from there. {_WAY_OUT}"
        )
    try:
        found = importlib.util.find_spec(kind.__module__) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise ValueError(f"{where} belongs to the module '{kind.__module__}', which cannot be imported. {_WAY_OUT}")
    if keras.saving.get_registered_object(keras.saving.get_registered_name(kind)) is not kind:
        raise ValueError(f"{where} is not registered with Keras, so that a second process cannot load it. {_WAY_OUT}")


def _save(model, path):
    try:
        model.save(path)
    except Exception as error:
        raise ValueError(
            f"The model '{model.name}' cannot be saved as a `.keras` file, which the export on the "
            f"{keras.backend.backend()} backend needs: {error} Fix this, or run the export with "
            f"KERAS_BACKEND=tensorflow."
        ) from error
