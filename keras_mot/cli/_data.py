"""The arrays of a `.npz` file, checked against the model before anything is trained."""

import dataclasses
import os
import zipfile

import numpy as np

from keras_mot.cli._archive import open_arrays
from keras_mot.cli._errors import UsageError
from keras_mot.cli._files import existing_file

_EVALUATION = (("x_test", "y_test"), ("x_val", "y_val"))


Arrays = np.ndarray | dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Data:
    """Arrays to train on, and to evaluate on; of models with several inputs or outputs, dictionaries of names.

    Attributes:
        x: samples to train on.
        y: their labels.
        evaluation: (samples, labels) to evaluate on.
        evaluation_name: the name of the array of samples that is evaluated on.
    """

    x: Arrays
    y: Arrays
    evaluation: tuple[Arrays, Arrays]
    evaluation_name: str


def load_data(path: str | os.PathLike) -> Data:
    """Reads `x_train` and `y_train`, and `x_test` and `y_test` (or `x_val` and `y_val`) where they are.

    In the place of each may be several arrays, one for each input or output: `x_train/NAME`.
    """
    path = existing_file(path, "a `.npz` file with the arrays x_train and y_train")
    if not zipfile.is_zipfile(path):
        raise UsageError(
            f"'{path}' is not a `.npz` file: write one with `numpy.savez(file, x_train=..., y_train=...)`."
        )
    try:
        archive = open_arrays(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"'{path}' cannot be read: {error}.") from error
    with archive:
        groups = _groups(archive.files, path)
        missing = [name for name in ("x_train", "y_train") if name not in groups]
        if missing:
            raise UsageError(f"'{path}' lacks {_names(missing)}; it holds {_names(archive.files) or 'no arrays'}.")
        for x_name, y_name in _EVALUATION:
            if (x_name in groups) != (y_name in groups):
                have, lack = (x_name, y_name) if x_name in groups else (y_name, x_name)
                raise UsageError(f"'{path}' has '{have}' but lacks '{lack}'; it holds {_names(archive.files)}.")
        train = _read_pair(archive, path, groups, "x_train", "y_train")
        for x_name, y_name in _EVALUATION:
            if x_name in groups:
                return Data(*train, _read_pair(archive, path, groups, x_name, y_name), x_name)
    return Data(*train, train, "x_train")


def _groups(files, path):
    """The arrays of a file by what they are for: "x_train" -> {"": "x_train"}, or {"NAME": "x_train/NAME", ...}."""
    groups = {}
    for file in files:
        group, _, part = file.partition("/")
        groups.setdefault(group, {})[part] = file
    for group, parts in groups.items():
        if "" in parts and len(parts) > 1:
            others = _names(sorted(set(parts.values()) - {group}))
            raise UsageError(f"'{path}' has '{group}' and {others}: one array, or one for each name.")
    return groups


def check_names_and_shapes(data, model):
    """Checks the names and shapes of the arrays against the inputs and outputs of a model that tells them."""
    from keras_mot.data.arrangement import input_arrangement, with_outputs

    if not getattr(model, "inputs", None):
        return
    outputs = model.outputs[0] if len(model.outputs) == 1 else model.output
    arrangement = with_outputs(input_arrangement(model), model, outputs)
    for x_name, (x, y) in (("x_train", (data.x, data.y)), (data.evaluation_name, data.evaluation)):
        _check_names(x_name, x, arrangement.inputs, "inputs")
        _check_names(x_name.replace("x_", "y_"), y, arrangement.outputs, "outputs")
        _check_shapes(x_name, x, arrangement.inputs, model.inputs)


def _check_names(label, arrays, names, kind):
    if names is None:
        return
    if isinstance(names, str):
        if isinstance(arrays, np.ndarray) or list(arrays) == [names]:
            return
        raise UsageError(f"The model has one of the {kind}, '{names}': store one array, '{label}'.")
    expected = _names(f"{label}/{name}" for name in names)
    if isinstance(arrays, np.ndarray):
        if len(names) == 1:
            return
        raise UsageError(f"The model has {len(names)} {kind}: store an array for each: {expected}.")
    if set(arrays) != set(names):
        found = _names(f"{label}/{name}" for name in arrays)
        raise UsageError(f"The arrays should be named after the {kind} of the model, {expected}; the file has {found}.")


def _check_shapes(label, arrays, names, tensors):
    if names is None:
        return
    listed = [(label, arrays)]
    if not isinstance(arrays, np.ndarray):
        listed = [(f"{label}/{name}", arrays[name]) for name in ([names] if isinstance(names, str) else names)]
    for (file, array), tensor in zip(listed, tensors, strict=True):
        _check_shape(file, array, tensor)


def _check_shape(name, array, tensor):
    from keras_mot.data.arrays import fit_samples

    if not fit_samples(array.shape, tensor.shape):
        raise UsageError(
            f"The samples of '{name}' have shape {array.shape[1:]}; the model takes {tuple(tensor.shape[1:])} "
            "(None: any size)."
        )


def check_against_model(data, model):
    """Checks the samples against the model's input, and returns the model's output for a few of them."""
    inputs = getattr(model, "inputs", None)
    if inputs is not None and len(inputs) != 1:
        raise UsageError(
            f"The model has {len(inputs)} inputs; this command takes models with one. "
            "`keras-mot compress` takes any, with a recipe."
        )
    if not isinstance(data.x, np.ndarray) or not isinstance(data.y, np.ndarray):
        raise UsageError("This command takes models with one input and one output: store 'x_train' and 'y_train'.")
    if inputs is not None:
        for name, x in (("x_train", data.x), (data.evaluation_name, data.evaluation[0])):
            _check_shape(name, x, inputs[0])
    try:
        outputs = model.predict_on_batch(first_samples(data.x, model))
    except Exception as error:
        raise UsageError(f"The model cannot be called on 'x_train' of shape {data.x.shape}: {error}") from error
    if not isinstance(outputs, np.ndarray):
        raise UsageError(
            "The model has several outputs; this command takes models with one. From Python, "
            "`keras_mot.sparsity.prune_low_magnitude` and `keras_mot.quantization.quantize_model` take any."
        )
    return outputs


def first_samples(x, model):
    """The first samples of `x`: as many as the model takes at once, or some."""
    from keras_mot.data.arrays import part
    from keras_mot.data.inputs import fixed_batch_size

    return part(x, slice(fixed_batch_size(model) or 64))


def _read_pair(archive, path, groups, x_name, y_name):
    x, y = (_read_group(archive, path, groups[name]) for name in (x_name, y_name))
    lengths = {file: len(array) for name, group in ((x_name, x), (y_name, y)) for file, array in _flat(name, group)}
    if len(set(lengths.values())) > 1:
        (first, count), *rest = lengths.items()
        other = next(file for file, length in rest if length != count)
        what = "labels" if other.startswith("y_") else "samples"
        raise UsageError(f"'{path}': '{first}' holds {count} samples and '{other}' {lengths[other]} {what}.")
    return x, y


def _flat(name, group):
    return [(name, group)] if isinstance(group, np.ndarray) else [(f"{name}/{key}", group[key]) for key in group]


def _read_group(archive, path, files):
    """One array, or a dictionary of them."""
    if "" in files:
        return _read(archive, path, files[""])
    return {part: _read(archive, path, file) for part, file in files.items()}


def _read(archive, path, name):
    try:
        array = archive[name]
    except (OSError, ValueError) as error:
        raise UsageError(f"'{path}': the array '{name}' cannot be read: {error}") from error
    if array.dtype.kind not in "fiub":
        raise UsageError(f"'{path}': the array '{name}' should hold numbers; it is of type {array.dtype}.")
    if array.ndim == 0 or len(array) == 0:
        raise UsageError(f"'{path}': the array '{name}' is empty, of shape {array.shape}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UsageError(f"'{path}': the array '{name}' holds NaN or infinite values.")
    return array


def _names(names):
    return ", ".join(f"'{name}'" for name in names)
