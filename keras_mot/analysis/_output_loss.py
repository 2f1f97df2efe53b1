"""What the outputs of a changed model are worth beside those of the model: pure array logic, but for users' losses."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

_LEAST = 1e-12  # of a probability
_HALF_A_STEP = 2.0**-9  # of probabilities in 8 bits: a zero is anything up to it


def make_measure(expected: Sequence[np.ndarray], loss: Any, labels: Sequence | None) -> tuple[str, Callable]:
    """What is measured, and the function that measures it.

    Args:
        expected: the outputs of the model, float64 arrays.
        loss: `None`, "kl", or a Keras loss, its name, or a function of labels and outputs.
        labels: of these outputs, for a loss.

    Returns:
        The name of the measure, and a function from outputs like `expected` to a number of at least 0.
    """
    if loss == "kl" or (loss is None and all(map(_are_probabilities, expected))):
        return "KL divergence", lambda outputs: sum(map(_kl, expected, outputs))
    if loss is None:
        return "relative error", lambda outputs: sum(map(relative_noise, expected, outputs)) / len(expected)
    compute = keras.losses.get(loss)
    kind = getattr(compute, "__name__", type(compute).__name__).lower()
    if isinstance(loss, str) and "crossentropy" in kind and not all(map(_are_shares, expected)):
        # A name says nothing of logits, which the outputs show.
        logits = {"from_logits": True}
        compute = type(compute)(**logits) if isinstance(compute, keras.Loss) else functools.partial(compute, **logits)

    def mean(outputs):
        values = outputs[0] if len(outputs) == 1 else list(outputs)
        result = compute(labels, np.asarray(values, "float32") if len(outputs) == 1 else values)
        return float(np.mean(keras.ops.convert_to_numpy(result)))

    before = mean(expected)
    return "increase of the loss", lambda outputs: max(mean(outputs) - before, 0.0)


def relative_noise(expected: np.ndarray, received: np.ndarray) -> float:
    """The squared error by the variance over samples."""
    noise = float(np.square(received - expected).sum())
    signal = float(np.square(expected - expected.mean(axis=0)).sum()) or float(np.square(expected).sum())
    return noise / max(signal, 1e-300)


def decibels(expected: Sequence[np.ndarray], received: Sequence[np.ndarray]) -> float | None:
    """The ratio of signal to noise of all outputs, in dB; `None` without noise."""
    ratio = sum(map(relative_noise, expected, received)) / len(expected)
    return -10 * math.log10(ratio) if ratio > 0 else None


def _are_shares(outputs):
    return bool(outputs.min() >= 0 and outputs.max() <= 1 + 1e-6)


def _are_probabilities(outputs):
    if outputs.ndim < 2 or not _are_shares(outputs):
        return False
    return bool(np.allclose(outputs.sum(axis=-1), 1, atol=1e-3) or outputs.shape[-1] == 1)


def _kl(expected, received):
    """The mean divergence of one distribution for each row from another; of one number, that of a yes or no."""
    are_probabilities = _are_probabilities(expected)  # rounded, they need not sum to 1
    wanted, got = (_distributions(each, are_probabilities) for each in (expected, received))
    got = np.where(got == 0, np.minimum(wanted, _HALF_A_STEP), got)
    got = got / np.maximum(got.sum(axis=-1, keepdims=True), _LEAST)
    terms = wanted * (np.log(np.maximum(wanted, _LEAST)) - np.log(np.maximum(got, _LEAST)))
    return max(float(terms.sum(axis=-1).mean()), 0.0)


def _distributions(outputs, are_probabilities):
    if are_probabilities:
        return np.concatenate([outputs, 1 - outputs], axis=-1) if outputs.shape[-1] == 1 else outputs
    exponentials = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
