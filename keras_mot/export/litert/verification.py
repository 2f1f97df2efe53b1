"""Compares what a `.tflite` file computes with what the Keras model computes."""

import dataclasses

import keras
import numpy as np

from keras_mot._keras import no_gradients
from keras_mot._warnings import warn
from keras_mot.data.arrays import is_finite
from keras_mot.export.litert.isolation import trust
from keras_mot.export.litert.judging import RULES, Rule, judge, log_odds
from keras_mot.export.litert.runner import LiteRTRunner
from keras_mot.layers.activation_quantizer import is_quantized
from keras_mot.quantization.simulation.reference_kernels import reference_rounding

_CHUNK = 32
_FEW = 4  # samples, where integers are computed with NumPy
_EXACT = Rule(0.05, 0.8, 20.0, 0.9)  # functions that kernels look up differ by a step, and what is in floats by less


class ExportVerificationError(RuntimeError):
    """The exported file does not compute what the Keras model computes."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a comparison has found.

    Attributes:
        error: Largest absolute difference, or None if nothing was compared.
        share: Of the values, those that agree, of the output with the least.
        decibels: Of signal to difference, of the output with the least.
        samples: On how many samples.
        random: Names of the outputs that differ from call to call, and were not compared.
        remark: What else was found, in words.
    """

    error: float | None = None
    share: float = 1.0
    decibels: float = float("inf")
    samples: int = 0
    random: tuple[str, ...] = ()
    remark: str = ""

    def describe(self, source):
        """The report in words, with what the samples are."""
        if not self.samples:
            return "not verified"
        drawn = f"{', '.join(map(repr, self.random))} cannot be compared: the model draws random numbers"
        if self.error is None:
            return f"not verified, as {drawn}"
        noise = "" if self.decibels == float("inf") else f", {self.decibels:.0f} dB"
        compared = f"max error {self.error:.3g} on {self.samples} {source} ({self.share:.1%} agree{noise})"
        return compared + (f"; {drawn}" if self.random else "") + (f"; {self.remark}" if self.remark else "")


class Verifier:
    """Runs files in the LiteRT runtime and compares them with one Keras model on the same data.

    Args:
        model: The Keras model.
        signature: Its `Signature`.
        arrays: Flat input arrays, or None if files shall not be compared.
        rule: The `Rule` that the outputs have to fulfil.
        batch_size: Number of samples that the Keras model is called on at a time.
        steps: Of each output, the distance of two of its numbers, or 0.
        others: Other arrays, to be taken if the model's outputs are not finite on the first.
        probabilities: Of each output, whether it is one of a sigmoid or softmax: what is no more off, as these take it,
            than their inputs may be is right, however small it is.

    Attributes:
        model: The Keras model.
        report: The `Report` of the last file.
    """

    def __init__(self, model, signature, arrays, rule, batch_size=None, steps=None, others=None, probabilities=None):
        self.model, self._signature = model, signature
        self._arrays, self._rule, self._steps, self._others = arrays, rule, steps, others
        self._probabilities = probabilities
        self._step = signature.fixed_batch_size or batch_size or _CHUNK
        self._expected = None
        self.report = Report()

    def named(self, output_names):
        """A function of (content, must_load=False) for files whose outputs have these names, in Keras' order.

        It returns the largest absolute error over all outputs, or None if files are not compared, and raises
        `ExportVerificationError` if an output is too far off, not finite, or shaped otherwise.
        """

        def verify(content, must_load=False):
            trust(content)
            self.report = Report()
            if self._arrays is None:
                if must_load:
                    self._load(content)
                return None
            self.report = self._compare(content, output_names)
            return self.report.error

        return verify

    def _load(self, content):
        """Raises a ValueError if the runtime does not take the file."""
        LiteRTRunner(content)

    def _received(self, content):
        """The outputs of the file by their names."""
        return LiteRTRunner(content, input_names=self._input_names).run(self._arrays)

    @property
    def _input_names(self):
        return [tensor.name for tensor in self._signature.inputs]

    def _compare(self, content, output_names):
        if self._expected is None:
            self._expected = self._keras_outputs()
            if self._others is not None and not all(map(is_finite, self._expected)):
                self._arrays = self._others
                self._expected = self._keras_outputs()
        received = self._received(content)
        found, random, again, exact = [], [], None, None
        for place, (name, expected) in enumerate(zip(output_names, self._expected, strict=True)):
            step = self._steps[place] if self._steps else 0.0
            try:
                judged = _compare_output(name, received[name], expected, self._rule, step)
                if judged.problem is not None and step == 0.0 and self._probabilities and self._probabilities[place]:
                    odds = judge(log_odds(received[name]), log_odds(expected), self._rule)
                    judged = dataclasses.replace(judged, problem=odds.problem and judged.problem)
                if judged.problem is not None:
                    exact = self._is_exact(content, output_names) if exact is None else exact
                    if not exact:
                        raise _too_far_off(name, judged)
                found.append(judged)
            except ExportVerificationError:
                again = self._keras_outputs() if again is None else again
                if not _is_random(received[name], expected, again[place]):
                    raise
                random.append(name)
        if exact:
            self._warn_of_amplified(min(found, key=lambda judged: judged.decibels))
        samples = len(self._arrays[0]) if self._arrays else 0
        if not found:
            return Report(samples=samples, random=tuple(random))
        errors, shares, decibels = zip(*((each.error, each.share, each.decibels) for each in found), strict=True)
        return Report(max(errors), min(shares), min(decibels), samples, tuple(random))

    def _is_exact(self, content, output_names):
        """Whether the file does on reference kernels what a quantized model does that rounds as these do."""
        if self._rule is not RULES["integer"] or not is_quantized(self.model):
            return False
        few = self._arrays if self._signature.fixed_batch_size else [array[:_FEW] for array in self._arrays]
        try:
            with reference_rounding(self.model):
                expected = keras_outputs(self.model, self._signature, few, self._step)
            received = LiteRTRunner(content, kernels="reference", input_names=self._input_names).run(few)
        except ValueError:  # there is no such rounding, or there are no such kernels
            return False
        steps = self._steps or [0.0] * len(expected)
        judged = [
            judge(received[name], each, _EXACT, step)
            for name, each, step in zip(output_names, expected, steps, strict=True)
            if received[name].shape == each.shape
        ]
        return len(judged) == len(expected) and all(each.problem is None for each in judged)

    def _warn_of_amplified(self, judged):
        warn(
            f"On reference kernels, the file does what '{self.model.name}' does. On this machine's kernels, which "
            f"round in other places, outputs differ by up to {judged.error:.3g} where the largest is "
            f"{judged.magnitude:.3g} ({judged.decibels:.0f} dB): the model makes much of single steps of rounding. "
            "Measure its accuracy with `LiteRTRunner`; more bits (`INT16X8`) or layers in floats make it steadier."
        )

    def _keras_outputs(self):
        return keras_outputs(self.model, self._signature, self._arrays, self._step)


def keras_outputs(model, signature, arrays, step):
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


def _is_random(received, first, second):
    """Whether the model itself returned something else when it was called again, and the file what could be that."""
    if received.shape != first.shape or not all(map(is_finite, (received, first, second))):
        return False
    difference = np.abs(first.astype("float64") - second.astype("float64"))
    return bool(difference.max() > 1e-4 * (np.abs(first).max() or 1.0))


def _compare_output(name, received, expected, rule, step):
    if received.shape != expected.shape:
        raise ExportVerificationError(
            f"The exported file returns output '{name}' in another shape. Expected: {expected.shape}. "
            f"Received: {received.shape}. No file was written."
        )
    if not is_finite(expected):
        raise ExportVerificationError(
            f"Output '{name}' of the Keras model is not finite on the verification data, so the file cannot "
            f"be verified. Check the model, or pass `verification_data` from its real input range."
        )
    if not is_finite(received):
        raise ExportVerificationError(
            f"Output '{name}' of the exported file is not finite on the verification data, while the Keras "
            f"model's is. With float16 weights this may be an overflow: export with weights='float32'. No "
            f"file was written."
        )
    return judge(received, expected, rule, step)


def _too_far_off(name, found):
    return ExportVerificationError(
        f"Output '{name}' of the exported file differs from the Keras model's by up to {found.error:.3g} where "
        f"the largest output is {found.magnitude:.3g}: {found.problem}. No file was written. Pass "
        f"`verification_data` from the model's real input range, or a larger `tolerance` if this error is "
        f"acceptable."
    )
