"""Whether a model still computes what another one does: its outputs by the noise in them, and by the decisions made.

A model that is to compute the same has lost it where a quarter of its decisions are others, or the noise has half of
the signal's energy, a quarter of outputs that are no decisions.
"""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot._arrays import numpy_value
from keras_mot._keras import no_gradients
from keras_mot._warnings import warn
from keras_mot.data.arrays import sample_count
from keras_mot.graph.model_graph import Graph
from keras_mot.graph.output_kinds import PROBABILITIES, maker_of

_FEW = 8  # samples: of fewer, what is common to all is a part of the signal
_LOST = 0.25  # share of decisions that are others, and of noise in outputs that are no decisions; twice in others
_LEAST = 0.01  # share of decisions: where nearly all are the same, a quarter of the others are too few to judge by
_SAME = 40.0  # dB: what a model computes twice is the same to rounding
_JUDGED_ON = 256  # samples
_FEWEST, _EVERY = 4, 8  # batches
_UNJUDGED = contextvars.ContextVar("unjudged", default=False)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What an output of a model is worth, beside that of the one that it was made of.

    Attributes:
        output: its number.
        ratio: of signal to noise, in dB.
        changed: the share of decisions that are others than those of the other model, or `None` if it makes none.
        useless: whether the user should know.
    """

    output: int
    ratio: float
    changed: float | None
    useless: bool

    def __str__(self):
        decisions = "" if self.changed is None else f", and {self.changed:.0%} of the decisions are others"
        return f"the signal-to-noise ratio is {self.ratio:.1f} dB{decisions}"


@dataclasses.dataclass(frozen=True)
class Changed:
    """Decisions that are others than those of another model.

    Attributes:
        share: of all.
        samples: how many samples there are; decisions within one depend on each other.
        rare: the share of decisions, of the other model, that are not the most frequent one.
    """

    share: float
    samples: int
    rare: float

    def above(self, limit: float) -> bool:
        """Whether more than a share are others, by more than chance explains, which shows many changes of few."""
        others = self.share * self.samples
        return others - 1.64 * math.sqrt(others) > limit * self.samples


def noise_and_ratio(expected: Sequence[np.ndarray], received: Sequence[np.ndarray]) -> tuple[float, float]:
    """The sum of the squared errors; and the ratio to it, in dB, of how much outputs differ between samples.

    Args:
        expected: the outputs of each batch.
        received: the same of another model.
    """
    noise = sum(float(np.square(got - wanted).sum()) for wanted, got in zip(expected, received, strict=True))
    samples = sum(len(array) for array in expected if array.ndim)
    rows = [array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1) for array in expected]
    same = len({row.shape[1] for row in rows}) == 1
    common = np.concatenate(rows).mean(axis=0) if samples >= _FEW and same else 0.0
    signal = sum(float(np.square(row - common).sum()) for row in rows)
    if signal <= 1e-12 * sum(float(np.square(row).sum()) for row in rows):  # outputs that are the same for all samples
        signal = sum(float(np.square(row).sum()) for row in rows)
    if not math.isfinite(noise):
        return noise, -math.inf
    return noise, 10 * math.log10(max(signal, 1e-300) / max(noise, 1e-300)) if signal or noise else math.inf


def changed_decisions(
    maker: str | None, tensor: keras.KerasTensor, expected: Sequence[np.ndarray], received: Sequence[np.ndarray]
) -> Changed | None:
    """The decisions that differ between two models; `None` if an output makes none.

    Args:
        maker: the name of the kind of operation that makes the output, as of `maker_of`.
        tensor: the output, symbolic.
        expected: the outputs of each batch.
        received: the same of the other model.
    """
    classes = tensor.shape[-1] if len(tensor.shape) > 1 else 1
    if "float" not in str(tensor.dtype):
        decide = np.asarray
    elif maker == "softmax":
        decide = _largest
    elif maker == "sigmoid":
        decide = _above_half
    elif len(tensor.shape) == 2 and (classes or 0) > 2:
        decide = _largest
    else:
        return None
    decided = [decide(wanted) for wanted in expected]
    differing = [wanted != decide(got) for wanted, got in zip(decided, received, strict=True)]
    count = sum(array.size for array in differing)
    _, counts = np.unique(np.concatenate([array.ravel() for array in decided]), return_counts=True)
    share = sum(int(array.sum()) for array in differing) / count
    return Changed(share, sum(len(array) for array in differing), 1 - counts.max() / count)


def _largest(values):
    return values.argmax(axis=-1)


def _above_half(values):
    return values > 0.5


def worst_of(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The useless output with most noise in it; `None` if all are of use."""
    return min((verdict for verdict in verdicts if verdict.useless), key=lambda each: each.ratio, default=None)


def told(verdict: Verdict, model: keras.Model) -> str:
    """A verdict in words, with the name of the output where a model has several."""
    names = model.output_names
    return f"output '{names[verdict.output]}': {verdict}" if len(names) > 1 else str(verdict)


def first_batches(batches: Sequence[Any], samples: int) -> Sequence[Any]:
    """As many of the first batches as hold so many samples."""
    sizes = np.cumsum([sample_count(batch) for batch in batches])
    return batches[: int(np.searchsorted(sizes, samples)) + 1]


@contextlib.contextmanager
def unjudged(wanted: bool = True):
    """Context in which `outputs_to_judge_by` finds none: the model is trained next, or others measure it."""
    token = _UNJUDGED.set(wanted or _UNJUDGED.get())
    try:
        yield
    finally:
        _UNJUDGED.reset(token)


def set_apart(batches: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Every eighth batch, to judge by, and the others; all of them twice, if they are fewer than four, or none judges.

    What a model was solved from, it still computes when it computes nothing else.
    """
    if len(batches) < _FEWEST or _UNJUDGED.get():
        return batches, batches
    return batches[::_EVERY], [batch for number, batch in enumerate(batches) if number % _EVERY]


def outputs_to_judge_by(model: keras.Model, batches: Sequence[Any]) -> list[list[np.ndarray]] | None:
    """Of each output of a model, the arrays of the first batches, of about 256 samples; `None` if none shall be judged.

    Those of a model that draws random numbers, which are others in each run, are not.

    Args:
        model: a functional model.
        batches: list of inputs as the model takes them.
    """
    if _UNJUDGED.get():
        return None
    found, again = _outputs(model, first_batches(batches, _JUDGED_ON)), _outputs(model, batches[:1])
    same = [noise_and_ratio(each[:1], other)[1] > _SAME for each, other in zip(found, again, strict=True)]
    return found if all(same) else None


def warn_if_lost(
    model: keras.Model, batches: Sequence[Any], expected: list[list[np.ndarray]] | None, what: str, way_out: str
) -> None:
    """Warns if the outputs of a model are no longer those of the model that it was made of, and of no use.

    Args:
        model: a functional model.
        batches: list of inputs as the model takes them.
        expected: what `outputs_to_judge_by` found for the other model.
        what: the subject of the sentence.
        way_out: what to do, in one sentence.
    """
    if expected is None:
        return
    graph, received = Graph(model), _outputs(model, first_batches(batches, _JUDGED_ON))
    pairs = enumerate(zip(expected, received, strict=True))
    worst = worst_of([_judged(graph, number, *each) for number, each in pairs])
    if worst is not None:
        warn(
            f"{what} is of little use as it is. On the calibration data, against the model of before, "
            f"{told(worst, model)}. {way_out}"
        )


def _judged(graph, number, expected, received):
    tensor = graph.outputs[number]
    maker = maker_of(graph, tensor)
    _, ratio = noise_and_ratio(expected, received)
    changed = changed_decisions(maker, tensor, expected, received)
    noise = 10 ** (-ratio / 10)
    if changed is None:
        return Verdict(number, ratio, None, noise > _LOST)
    # Of decisions that are nearly always the same, a model that makes no other has few changed.
    others = changed.above(max(_LEAST, _LOST * min(1, 2 * changed.rare)))
    sure = maker in PROBABILITIES or "float" not in str(tensor.dtype)  # others may be no decisions at all
    useless = noise > 2 * _LOST or (others and (sure or noise > _LOST))
    return Verdict(number, ratio, changed.share, useless)


def _outputs(model, batches):
    """Of each output of a model, the arrays of all batches."""
    found = []
    with no_gradients():
        for batch in batches:
            outputs = model(keras.tree.map_structure(ops.convert_to_tensor, batch), training=False)
            found.append([numpy_value(ops.cast(each, "float32")) for each in keras.tree.flatten(outputs)])
    return [list(each) for each in zip(*found, strict=True)]
