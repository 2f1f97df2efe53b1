"""Compares what a file computes in TFLM with what the quantized model computes, integer by integer."""

import contextlib
import dataclasses
import math

import numpy as np

from keras_mot.export.litert.micro.differences import first_difference
from keras_mot.export.litert.micro.runner import MicroRunner
from keras_mot.export.litert.verification import ExportVerificationError, Verifier, keras_outputs
from keras_mot.quantization.simulation.reference_kernels import reference_rounding


class MicroVerifier(Verifier):
    """A `Verifier` that runs files in TFLM, and expects what the model computes when it rounds as TFLM's kernels do.

    Arguments as of `Verifier`. The report says which share of the outputs is equal; if that is not all, which tensor of
    the file is the first that differs.

    Attributes:
        arena_bytes: the smallest arena that the last file runs in, or `None` before.
        activation_bytes: the part of it that activations share.
    """

    arena_bytes = activation_bytes = None

    def _received(self, content):
        runner = MicroRunner(content, input_names=self._input_names)
        self._outputs = runner.run(self._arrays)
        self.arena_bytes, self.activation_bytes = runner.arena_bytes, runner.activation_bytes
        return self._outputs

    def check_same(self, content: bytes) -> None:
        """Raises an `ExportVerificationError` if a file does not return the very integers of the last one."""
        known, names = self._outputs, self._input_names
        runner = MicroRunner(content, input_names=names)
        for name, received in runner.run(self._arrays).items():
            if not np.array_equal(received, known[name]):
                raise ExportVerificationError(
                    f"With compressed weights, {np.mean(received != known[name]):.2%} of the values of output '{name}' "
                    "of the exported file are others than with dense ones. No file was written. Export with "
                    "`compress_weights=False`."
                )
        self.arena_bytes, self.activation_bytes = runner.arena_bytes, runner.activation_bytes

    def _keras_outputs(self):
        with reference_rounding(self.model):
            return super()._keras_outputs()

    def _is_exact(self, content, output_names):
        return False  # it was compared so already

    def _compare(self, content, output_names):
        report = super()._compare(content, output_names)
        steps = self._steps or [0.0] * len(self._expected)
        equal = [
            _same(self._outputs[name], expected, step)
            for name, expected, step in zip(output_names, self._expected, steps, strict=True)
            if name not in report.random
        ]
        if not equal:
            return report
        share = np.concatenate([each.ravel() for each in equal]).mean()
        remark = f"{math.floor(share * 10_000) / 100:.2f}% equal in TFLM"
        if share < 1.0:
            wrong = np.flatnonzero(np.any([~each.reshape(len(each), -1).all(axis=1) for each in equal], axis=0))
            one = [array[wrong[0] : wrong[0] + 1] for array in self._arrays]
            with contextlib.suppress(ValueError):  # it takes more memory and time than the file itself
                found = first_difference(self.model, self._call, content, one, self._input_names)
                remark += "" if found is None else f", {found}"
        return dataclasses.replace(report, remark=remark)

    def _call(self, arrays):
        return keras_outputs(self.model, self._signature, arrays, 1)


def _same(received, expected, step):
    """Which values are the same integer, or, where there are none, the same."""
    return np.abs(received.astype("float64") - expected) <= (step or 1e-6) / 2
