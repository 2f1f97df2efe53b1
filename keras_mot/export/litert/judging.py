"""Whether two outputs are the same but for rounding: by what share of the values agrees, and by the noise left over.

The largest difference alone is no measure: one value in a million that is rounded the other way, and decides a
comparison within the model, is no fault of a file; and where most values are next to zero, all of them may be wrong and
still be near.
"""

import dataclasses
import math

import numpy as np

_FEW = 16  # values; fewer have no variance that says something


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a file's outputs have to fulfil.

    Attributes:
        tolerance: how far a value may be off, as a share of the output's largest magnitude.
        share: of the values, at least, that are no further off.
        decibels: least ratio of signal (variance over the values of the output) to noise (mean squared difference).
        equal: share of the values of outputs that are whole numbers (classes, indices) that have to be the same.
        enough: ratio of signal to noise from which on the share does not count.
    """

    tolerance: float
    share: float
    decibels: float
    equal: float
    enough: float = math.inf


RULES = {
    "float32": Rule(1e-3, 0.99, 40.0, 0.99),
    "float16": Rule(2e-2, 0.99, 28.0, 0.98),
    "int8": Rule(1e-1, 0.95, 14.0, 0.9),
    # Of quantized models, model and file are compared, not with the float model: they round alike but for rare ties.
    "integer": Rule(0.05, 0.8, 12.0, 0.8, 18.0),
    # Rows are rounded alike in model and file, but for ties that the last bits of float sums decide.
    "dynamic": Rule(0.02, 0.95, 26.0, 0.95, 30.0),
}


def exactly(tolerance: float) -> Rule:
    """The rule that no value is off by more than a share of the largest magnitude."""
    return Rule(tolerance, 1.0, -math.inf, 1.0 - tolerance)


@dataclasses.dataclass(frozen=True)
class Judgement:
    """How near two outputs are.

    Attributes:
        error: largest absolute difference.
        magnitude: largest absolute value that was expected.
        share: of the values within the tolerance.
        decibels: of signal to noise; infinite without noise.
        problem: what is wrong, or `None`.
    """

    error: float
    magnitude: float
    share: float
    decibels: float
    problem: str | None


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """What a sigmoid makes these probabilities of; 0 and 1 as what float32 has next to them."""
    values = np.clip(probabilities.astype("float64"), np.finfo("float32").tiny, 1.0 - 2.0**-24)
    return np.log(values) - np.log1p(-values)


def judge(received: np.ndarray, expected: np.ndarray, rule: Rule, step: float = 0.0) -> Judgement:
    """Compares an output of a file with that of the model.

    Args:
        received: finite numbers.
        expected: finite numbers of the same shape.
        rule: the `Rule`.
        step: of a quantized output, the distance of two of its numbers: what differs by one does not count.
    """
    whole = expected.dtype.kind in "iub" and received.dtype.kind in "iub"
    received, expected = received.astype("float64"), expected.astype("float64")
    if expected.size == 0:
        return Judgement(0.0, 0.0, 1.0, math.inf, None)
    error = np.abs(received - expected)
    magnitude = float(np.abs(expected).max())
    if whole:
        share = float((error == 0).mean())
        problem = None if share >= rule.equal else f"only {share:.1%} of its whole numbers are the same"
        return Judgement(float(error.max()), magnitude, share, math.inf, problem)
    share = float((error <= max(rule.tolerance * (magnitude or 1.0), 2 * step)).mean())
    signal = expected.var() if expected.size >= _FEW else (expected**2).mean()
    noise = (np.maximum(error - step, 0.0) ** 2).mean()
    # An output that hardly changes has no signal: a thousandth of its magnitude is taken for one.
    signal = max(signal, (1e-3 * magnitude) ** 2, (2 * step) ** 2)
    decibels = math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf
    problem = None
    if share < rule.share and decibels < rule.enough:
        problem = f"only {share:.1%} of its values are within {rule.tolerance:.3g} of that"
    elif decibels < rule.decibels:
        problem = f"the signal is {decibels:.0f} dB above the difference, where {rule.decibels:.0f} are expected"
    return Judgement(float(error.max()), magnitude, share, decibels, problem)
