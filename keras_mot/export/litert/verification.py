"""Compares what a `.tflite` file computes with what the Keras model computes."""

import keras
import numpy as np

from keras_mot._keras import no_gradients
from keras_mot.export.litert.isolation import trust
from keras_mot.export.litert.runner import LiteRTRunner

_CHUNK = 32


class ExportVerificationError(RuntimeError):
    """The exported file does not compute what the Keras model computes."""


class Verifier:
    """Runs files in the LiteRT runtime and compares them with one Keras model on the same data.

    Args:
        model: The Keras model.
        signature: Its `Signature`.
        arrays: Flat input arrays, or None if files shall not be compared.
        tolerance: Largest accepted error of an output relative to the largest magnitude of that output.
        batch_size: Number of samples that the Keras model is called on at a time.
    """

    def __init__(self, model, signature, arrays, tolerance, batch_size=None):
        self._model, self._signature = model, signature
        self._arrays, self._tolerance = arrays, tolerance
        self._step = signature.fixed_batch_size or batch_size or _CHUNK
        self._expected = None

    def named(self, output_names):
        """A function of (content, must_load=False) for files whose outputs have these names, in Keras' order.

        It returns the largest absolute error over all outputs, or None if files are not compared, and raises
        `ExportVerificationError` if an output is too far off, not finite, or shaped otherwise.
        """

        def verify(content, must_load=False):
            trust(content)
            if self._arrays is None:
                if must_load:
                    LiteRTRunner(content)
                return None
            return self._compare(content, output_names)

        return verify

    def _compare(self, content, output_names):
        if self._expected is None:
            self._expected = _keras_outputs(self._model, self._signature, self._arrays, self._step)
        names = [tensor.name for tensor in self._signature.inputs]
        received = LiteRTRunner(content, input_names=names).run(self._arrays)
        return max(
            _compare_output(name, received[name], reference, self._tolerance)
            for name, reference in zip(output_names, self._expected, strict=True)
        )


def _keras_outputs(model, signature, arrays, step):
    """The flat outputs of the Keras model in inference mode as NumPy arrays."""
    chunks = []
    with no_gradients():
        for start in range(0, len(arrays[0]), step):
            tensors = [keras.ops.convert_to_tensor(array[start : start + step]) for array in arrays]
            try:
                outputs = keras.tree.flatten(signature.call(model, tensors))
            except Exception as error:
                raise ValueError(
                    f"The Keras model '{model.name}' cannot be called on the verification data, of shapes "
                    f"{[tuple(tensor.shape) for tensor in tensors]}. Pass `verification_data` that it takes, "
                    f"or `batch_size` if it takes one batch size only. It says: {error}"
                ) from error
            chunks.append([keras.ops.convert_to_numpy(tensor) for tensor in outputs])
    return [np.concatenate(parts) if parts[0].ndim else parts[-1] for parts in zip(*chunks, strict=True)]


def _compare_output(name, received, expected, tolerance):
    if received.shape != expected.shape:
        raise ExportVerificationError(
            f"The exported file returns output '{name}' in another shape. Expected: {expected.shape}. "
            f"Received: {received.shape}. No file was written."
        )
    received, expected = received.astype("float64"), expected.astype("float64")
    if not np.isfinite(expected).all():
        raise ExportVerificationError(
            f"Output '{name}' of the Keras model is not finite on the verification data, so the file cannot "
            f"be verified. Check the model, or pass `verification_data` from its real input range."
        )
    if not np.isfinite(received).all():
        raise ExportVerificationError(
            f"Output '{name}' of the exported file is not finite on the verification data, while the Keras "
            f"model's is. With float16 weights this may be an overflow: export with weights='float32'. No "
            f"file was written."
        )
    if expected.size == 0:
        return 0.0
    error, magnitude = np.abs(received - expected).max(), np.abs(expected).max()
    if error > tolerance * (magnitude or 1.0):
        raise ExportVerificationError(
            f"Output '{name}' of the exported file differs from the Keras model's by up to {error:.3g} where "
            f"the largest output is {magnitude:.3g}. Expected: at most {tolerance:.3g} of that. No file was "
            f"written. Pass `verification_data` from the model's real input range, or a larger `tolerance` "
            f"if this error is acceptable."
        )
    return float(error)
