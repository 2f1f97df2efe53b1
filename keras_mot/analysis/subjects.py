"""What can be measured: a Keras model, a `.keras` file, an exported file, the result of an export."""

import collections.abc
import os
import pathlib
import zipfile

import keras
import numpy as np

from keras_mot._arrays import float_value
from keras_mot._formats import DEFAULT, KERAS, format_of_content, format_of_name
from keras_mot._messages import describe
from keras_mot._model_files import load_model_file
from keras_mot.analysis._sizes import saved_content
from keras_mot.analysis._tensors import file_tensor_stats, keras_tensor_stats
from keras_mot.data.arrays import full_slices, joined, part, sample_count
from keras_mot.data.inputs import fixed_batch_size
from keras_mot.data.naming import name_outputs
from keras_mot.export.litert.litert_file import ConstantTensor
from keras_mot.export.litert.random_inputs import OPEN_SIZES
from keras_mot.export.protocol import Export

Subject = keras.Model | str | os.PathLike | Export


class KerasSubject:
    """A Keras model, in memory or from a file."""

    kind = "keras"
    runner = None

    def __init__(self, model, path=None):
        self.name, self.path, self.model = (path.name if path else model.name), path, model
        self.tensors = keras_tensor_stats(model)

    def content(self):
        """The bytes of the file, or of the one that the model would be saved to."""
        return self.path.read_bytes() if self.path else saved_content(self.model)

    def constants(self):
        """The `ConstantTensor` of each weight, named by its path."""
        names = [weight.path.removeprefix(f"{self.model.name}/") for weight in self.model.weights]
        kinds = [keras.backend.standardize_dtype(weight.dtype) for weight in self.model.weights]
        return [
            ConstantTensor(name, kind, float_value(weight), False, 0)
            for name, kind, weight in zip(names, kinds, self.model.weights, strict=True)
        ]

    def operators(self):
        """Nothing: a model has operators once it is exported."""
        return {}

    def start(self, num_threads):
        """Nothing to do: a model is called as it is."""

    def predict(self, x):
        """The outputs of the model on `x`."""
        return predict(self.model, x)


class FileSubject:
    """An exported file, which is read here, and run by its runtime once it is started."""

    runner = None

    def __init__(self, format, path, input_names=None, output_names=None):
        self.name, self.path, self.kind = path.name, path, format.name
        self._format, self._input_names, self._output_names = format, input_names, output_names
        self.tensors = file_tensor_stats(format.functions.parameters(path))

    def constants(self):
        """The `ConstantTensor`s in the file."""
        return list(self._format.functions.parameters(self.path))

    def operators(self):
        """Dictionary from (operator, type of what it computes) to how often the file has it."""
        return self._format.functions.operators(self.path)

    def start(self, num_threads):
        """Loads the file into the runtime."""
        self.runner = self._format.functions.runner(self.path, num_threads, self._input_names)

    def content(self):
        """The bytes of the file."""
        return self.path.read_bytes()

    def predict(self, x):
        """The outputs of the file on `x`: an array, or a dictionary from names to arrays."""
        outputs = self.runner.run(x)
        if len(outputs) == 1:
            return next(iter(outputs.values()))
        # A file lists its outputs in an order of its own; an export knows that of the model.
        return {name: outputs[name] for name in self._output_names or outputs}

    def example(self):
        """Random inputs for one sample, for timing without data; open sizes are such that the file takes them."""
        for size in OPEN_SIZES:
            arrays = self._random_inputs(size)
            try:
                self.runner.set_inputs(arrays)
            except (RuntimeError, ValueError):
                if size == OPEN_SIZES[-1]:
                    raise
            else:
                break
        return arrays

    def _random_inputs(self, open_size):
        generator = np.random.default_rng(0)
        arrays = []
        for tensor in self.runner.inputs:
            shape = [1, *(size or open_size for size in tensor.shape[1:])]
            values = generator.standard_normal(shape)
            arrays.append(values if "float" in tensor.dtype else np.abs(values) > 1)
        return [array.astype(tensor.dtype) for array, tensor in zip(arrays, self.runner.inputs, strict=True)]


def predict(model, x):
    """The outputs of a Keras model for a batch: an array, or a dictionary of arrays if there are several."""
    step = fixed_batch_size(model)
    outputs = model.predict_on_batch(x) if step is None else _predict_in_steps(model, x, step)
    names, flat = name_outputs(model, outputs)
    return flat[0] if len(flat) == 1 else dict(zip(names, flat, strict=True))


def _predict_in_steps(model, x, step):
    """Predicts `step` samples at a time; the last ones are repeated to fill up, and the surplus is cut off."""
    parts = [model.predict_on_batch(batch) for batch in full_slices(x, step)]
    return part(joined(parts), slice(sample_count(x)))


def start(subjects, num_threads):
    """Loads the files among the subjects into the runtime."""
    for subject in subjects:
        subject.start(num_threads)


def collect(subjects):
    """Turns what the user passed into a list of (name, subject), with distinct names."""
    if len(subjects) == 1 and isinstance(subjects[0], collections.abc.Mapping):
        pairs = [(str(name), open_subject(item)) for name, item in subjects[0].items()]
    else:
        opened = [open_subject(item) for item in subjects]
        pairs = [(subject.name, subject) for subject in opened]
    if not pairs:
        raise ValueError(
            "Nothing to measure. Pass one or more Keras models, paths of `.keras`, `.tflite` or `.onnx` files, or "
            "results of an export, or a dictionary of names and these."
        )
    result, count = [], {}
    for name, subject in pairs:
        count[name] = count.get(name, 0) + 1
        result.append((name if count[name] == 1 else f"{name} ({count[name]})", subject))
    return result


def open_subject(item):
    """Opens one subject by its type, files by their content. Nothing is run."""
    if isinstance(item, keras.Model):
        if not item.built:
            raise ValueError(
                f"The model '{item.name}' is not built: its weights do not exist yet. Call it once on a "
                f"batch of data, or start it with a `keras.Input`."
            )
        return KerasSubject(item)
    if isinstance(item, Export):
        path = _existing_file(item.path)
        return FileSubject(format_of_content(path) or DEFAULT, path, item.input_names, item.output_names)
    if not isinstance(item, (str, os.PathLike)):
        raise TypeError(
            f"Expected a Keras model, the path of a `.keras`, `.tflite` or `.onnx` file, or the result of an export; "
            f"received {describe(item)} of type {type(item).__name__}."
        )
    path = _existing_file(pathlib.Path(item))
    found = format_of_content(path)  # first, for a zip archive of metadata may follow the model
    if found is None and (path.suffix == KERAS or zipfile.is_zipfile(path)):
        return KerasSubject(load_model_file(path), path)
    return FileSubject(found or format_of_name(path) or DEFAULT, path)


def _existing_file(path):
    if not path.is_file():
        raise ValueError(f"Expected the path of a `.keras`, `.tflite` or `.onnx` file; received '{path}', not a file.")
    return path
