"""Compares what a file computes in TFLM with what the quantized model computes, integer by integer."""

import dataclasses

import numpy as np

from keras_mot.export.litert.verification import Verifier, keras_outputs
from keras_mot.export.micro.differences import first_difference
from keras_mot.export.micro.runner import MicroRunner
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

    def _load(self, content):
        self._measure(MicroRunner(content), [np.zeros((1, *shape), kind) for shape, kind in self._forms(content)])

    def _forms(self, content):
        return [(tensor.shape[1:], tensor.dtype) for tensor in MicroRunner(content).inputs]

    def _received(self, content):
        return self._measure(MicroRunner(content, input_names=self._input_names), self._arrays)

    def _measure(self, runner, arrays):
        outputs = runner.run(arrays)
        self.arena_bytes, self.activation_bytes = runner.arena_bytes, runner.activation_bytes
        return outputs

    def _keras_outputs(self):
        with reference_rounding(self.model):
            return super()._keras_outputs()

    def _is_exact(self, content, output_names):
        return False  # it was compared so already

    def _compare(self, content, output_names):
        report = super()._compare(content, output_names)
        received = self._received(content)
        equal = [
            _same(received[name], expected, step)
            for name, expected, step in zip(output_names, self._expected, self._steps, strict=True)
            if name not in report.random
        ]
        if not equal:
            return report
        share = np.concatenate([each.ravel() for each in equal]).mean()
        remark = f"{share:.2%} equal in TFLM"
        if share < 1.0:
            wrong = np.flatnonzero(np.any([~each.reshape(len(each), -1).all(axis=1) for each in equal], axis=0))
            one = [array[wrong[0] : wrong[0] + 1] for array in self._arrays]
            found = first_difference(self.model, self._call, content, one, self._input_names)
            remark += "" if found is None else f", {found}"
        return dataclasses.replace(report, remark=remark)

    def _call(self, arrays):
        return keras_outputs(self.model, self._signature, arrays, 1)


def _same(received, expected, step):
    """Which values are the same integer, or, where there are none, the same."""
    return np.abs(received.astype("float64") - expected) <= (step or 1e-6) / 2
