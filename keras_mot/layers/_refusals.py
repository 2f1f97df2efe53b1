"""What Keras can do with a plain layer or model, and not with transforms attached: refused before anything changes.

Each would go on without a word, or with one about numbers of variables, and the model would not compute what its masks
and codebooks say.
"""

import contextvars
import os
import zipfile

import keras

from keras_mot._keras import extend
from keras_mot._warnings import warn

_EXPORTING = contextvars.ContextVar("exporting", default=False)
_STRIP = "Strip it first (`strip_pruning`, `strip_clustering`, `strip_quantization`)"


def refused_methods(plain_class):
    """The methods that a transformed layer has in place of those of its class."""
    return {name: method for name, method in _OF_LAYERS.items() if hasattr(plain_class, name)}


def _enable_lora(self, *args, **kwargs):
    """Raises a `ValueError`: no transform would see what LoRA adds, and no file would hold it apart."""
    raise ValueError(
        f"LoRA cannot be enabled on '{self.name}', whose weights have masks, codebooks or quantizers: what it adds to "
        f"a weight has no zeros and no shared values. {_STRIP}; once LoRA is merged, zeros and shared values are lost."
    )


def _quantize(self, *args, **kwargs):
    """Raises a `ValueError`: Keras's integers would take the place of the weights that transforms read."""
    raise ValueError(_no_quantization(self))


def _no_quantization(layer):
    return (
        f"Keras cannot quantize '{layer.name}', whose weights have masks, codebooks or quantizers. {_STRIP}, or use "
        "`keras_mot.quantization`, which carries masks and codebooks into the quantized model."
    )


_OF_LAYERS = {"enable_lora": _enable_lora, "quantize": _quantize}


def guard_models(has_transforms):
    """Makes `keras.Model` refuse `quantize` and `load_weights` where they cannot work.

    Args:
        has_transforms: function from a model to whether any of its weights has transforms.
    """

    def guard_quantize(quantize):
        def guarded(self, *args, **kwargs):
            if has_transforms(self):
                raise ValueError(_no_quantization(self))
            return quantize(self, *args, **kwargs)

        return guarded

    def guard_load_weights(load_weights):
        def guarded(self, filepath, skip_mismatch=False, **kwargs):
            if not skip_mismatch:
                _check_file(self, filepath, has_transforms(self))
            return load_weights(self, filepath, skip_mismatch, **kwargs)

        return guarded

    extend(
        *(keras.Model, "quantize", guard_quantize),
        without="Keras's `quantize` may be called on a model with masks or codebooks, which its integers then ignore",
    )
    extend(
        *(keras.Model, "load_weights", guard_load_weights),
        arguments=("filepath", "skip_mismatch"),
        without="weights that belong to a model with other transforms are refused with Keras's words, or not at all",
    )


def guard_exports(has_transforms):
    """Makes Keras's exports, and TensorFlow's converter, warn of a model whose transforms would go into the file.

    Args:
        has_transforms: function from a model to whether any of its weights has transforms.
    """

    def warn_of_transforms(model):
        if isinstance(model, keras.Model) and has_transforms(model):
            warn(
                f"'{model.name}' still has masks, codebooks or quantizers, and the exported file will compute them "
                "anew in each inference, in floats: masks are multiplied, shared values looked up, weights rounded. It "
                "gets neither smaller nor faster by them. Export what `strip_pruning` or `strip_clustering` returns; "
                "and a model of `quantize_model` or `quantize_post_training` by `keras_mot.export.export_litert`."
            )

    def guard_export(export):
        def guarded(self, *args, **kwargs):
            warn_of_transforms(self)
            token = _EXPORTING.set(True)
            try:
                return export(self, *args, **kwargs)
            finally:
                _EXPORTING.reset(token)

        return guarded

    def guard_track(track):
        def guarded(self, resource):
            if not _EXPORTING.get():  # `tf.lite.TFLiteConverter.from_keras_model` comes by here
                warn_of_transforms(resource)
            return track(self, resource)

        return guarded

    without = "no warning is given where a model is exported with its masks or codebooks"
    extend(*(keras.Model, "export", guard_export), arguments=("filepath",), without=without)
    if keras.backend.backend() == "tensorflow":
        archive = type(keras.export.ExportArchive())  # Keras makes one of a class for each format
        extend(*(archive, "track", guard_track), arguments=("resource",), without=without)


def _check_file(model, path, transformed):
    in_file = _has_transforms(str(path))
    if in_file is None or in_file == transformed:
        return
    if transformed:
        raise ValueError(
            f"'{path}' holds the weights of a plain model, and those of '{model.name}' have masks, codebooks or "
            "quantizers, of which the file says nothing. Load it into the plain model, before `prune_low_magnitude`, "
            "`cluster_weights` or `quantize_model`."
        )
    raise ValueError(
        f"'{path}' holds weights with their masks, codebooks or quantizers, and '{model.name}' is a plain model. Load "
        "it into a model from `prune_low_magnitude`, `cluster_weights` or `quantize_model`, and strip that; or strip "
        "the model before `save_weights`."
    )


def _has_transforms(path):
    """Whether a file of weights holds those of transforms; `None` if that cannot be told."""
    try:
        if path.endswith(".weights.h5") and os.path.isfile(path):
            import h5py

            with h5py.File(path) as file:
                return bool(file.visit(lambda name: "_weight_transforms" in name or None))
        if path.endswith(".keras") and os.path.isfile(path):
            with zipfile.ZipFile(path) as archive:
                return b"keras_mot>TransformedLayer" in archive.read("config.json")
    except (OSError, KeyError, zipfile.BadZipFile):
        pass  # Keras says what is wrong with the file
    return None
