"""What a criterion sees of a weight, and the data that the rest of it is computed from."""

import contextlib
import contextvars
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_mot._messages import describe
from keras_mot._numbers import is_whole
from keras_mot.data.arrays import sample_count
from keras_mot.data.inputs import checked_inputs, labelled_batches
from keras_mot.data.pairs import batches as batches_of_pairs
from keras_mot.graph import trace
from keras_mot.graph.functional import as_functional
from keras_mot.layers import WeightAxes

GRADIENTS = ("gradient", "absolute_gradient", "squared_gradient", "movement")
MOMENTS = ("input_square", "inverse_moment")


@dataclasses.dataclass(frozen=True, eq=False)
class WeightEvidence:
    """All that is known of a weight when its mask is chosen. Arrays have the shape of the weight; none may be changed.

    What comes from data is `None` unless the criterion `needs` it. Gradients are those of the loss with respect to the
    weight in use, before its mask, so that weights out of use have one, too.

    Args:
        weight: the stored values, those under the mask included.
        path: the path of the weight.
        step: training steps that have ended.
        mask: bool, the present mask.
        axes: what the axes of the weight mean.
        gradient: the mean over the batches.
        absolute_gradient: the mean of the absolute values for each batch.
        squared_gradient: the mean of the squares for each batch.
        movement: minus gradient times weight, added up over all updates so far: how far training moves the weight away
            from zero.
        input_square: the mean square of the input that the weight is multiplied by.
        inverse_moment: the diagonal of the inverse of H, the damped mean of XX' of the inputs X of an output.
    """

    weight: np.ndarray
    path: str
    step: int
    mask: np.ndarray
    axes: WeightAxes
    gradient: np.ndarray | None = None
    absolute_gradient: np.ndarray | None = None
    squared_gradient: np.ndarray | None = None
    movement: np.ndarray | None = None
    input_square: np.ndarray | None = None
    inverse_moment: np.ndarray | None = None


class PruningEvidence:
    """Data that criteria such as `Taylor`, `Wanda` or `RigL` are computed from, and the loss.

    Each update of the masks takes the next samples, and begins again where they end. Small parts of the training data
    will do; for `RigL`, some batches.

    Args:
        data: inputs as arrays; a tuple of inputs and labels; or an iterable of batches of these that can be gone
            through more than once. Gradients need labels.
        loss: a Keras loss, its name, or a function of labels and outputs; by default, that of the compiled model.
        batch_size: how many samples of arrays make a batch.
        samples: how many samples an update takes, at least; by default, 512.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if a number is out of range.

    Example:

    ```python
    evidence = PruningEvidence((x_train[:2048], y_train[:2048]))
    pruned = prune_low_magnitude(model, ConstantSparsity(0.8, 0, frequency=100), criterion=RigL())
    pruned.compile("adam", "sparse_categorical_crossentropy")
    pruned.fit(x_train, y_train, callbacks=[UpdatePruningStep(evidence)])
    ```
    """

    def __init__(self, data: Any, loss: Any = None, batch_size: int = 64, samples: int = 512):
        if loss is not None and not isinstance(loss, str) and not callable(loss):
            raise TypeError(
                f"`loss` should be a Keras loss or its name, or a function of labels and outputs; received "
                f"{describe(loss)}."
            )
        for name, value in (("batch_size", batch_size), ("samples", samples)):
            if not is_whole(value) or value < 1:
                raise ValueError(f"`{name}` should be a positive integer; received {describe(value)}.")
        self.data = data
        self.loss = keras.losses.get(loss) if isinstance(loss, str) else loss
        self.batch_size = batch_size
        self.samples = samples
        self.compiled = None  # a model whose loss is taken where the pruned one is not compiled
        self.moved = {}  # id of a variable -> its movement so far
        self._batches = None

    def next_batches(self, model: keras.Model) -> list[tuple[Any, Any]]:
        """The pairs of inputs and labels (or `None`) that the next update takes.

        Args:
            model: the model that takes the inputs.
        """
        if self._batches is None:
            self._batches = self._endless(model)
        taken, count = [], 0
        while count < self.samples:
            inputs, labels = next(self._batches)
            taken.append((inputs, labels))
            count += sample_count(inputs)
            if self._ended:
                break
        return taken

    def _endless(self, model: keras.Model) -> Iterator[tuple[Any, Any]]:
        for _ in itertools.count():
            found, self._ended = False, False
            # One batch ahead, to know the last one: no update takes the same samples twice.
            iterator = iter(self._once(model))
            batch = next(iterator, None)
            while batch is not None:
                found, following = True, next(iterator, None)
                self._ended = following is None
                yield batch
                batch = following
            if not found:
                raise ValueError(
                    "The data of `PruningEvidence` are empty, or an iterator that has come to its end: give arrays, or "
                    "an iterable that can be gone through again, such as a list of batches."
                )

    def _once(self, model):
        try:
            functional = as_functional(trace(model))
        except ValueError:  # whose inputs nobody knows; its `fit` takes such pairs
            return batches_of_pairs(self.data, self.batch_size, "data")
        pairs = labelled_batches(functional, self.data, self.batch_size, "data")[1]
        return (
            (checked_inputs(functional, inputs, f"batch {number} of the data of `PruningEvidence`"), labels)
            for number, (inputs, labels) in enumerate(pairs)
        )


def check_evidence(evidence: Any) -> None:
    """Raises a `TypeError` for anything but a `PruningEvidence` or `None`."""
    if evidence is not None and not isinstance(evidence, PruningEvidence):
        raise TypeError(f"`evidence` should be a `PruningEvidence`; received {describe(evidence)}.")


_CURRENT = contextvars.ContextVar("pruning_evidence", default=None)


@contextlib.contextmanager
def using(model: keras.layers.Layer, evidence: PruningEvidence | None):
    """Context in which updates of masks of `model` find the data that criteria need.

    Args:
        model: the model with masks.
        evidence: a `PruningEvidence`, or `None` to change nothing.
    """
    check_evidence(evidence)
    if evidence is None:
        yield
        return
    token = _CURRENT.set((model, evidence))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def require(criterion: Any) -> tuple[keras.Model, PruningEvidence]:
    """The model and data in use.

    Raises:
        ValueError: naming the criterion, if there are none.
    """
    current = _CURRENT.get()
    if current is None:
        raise ValueError(
            f"{criterion!r} needs {', '.join(criterion.needs)}, which data have to tell: pass "
            "`UpdatePruningStep(PruningEvidence((x, y)))` to the callbacks of `fit`, "
            "`update_pruning_step(model, evidence=...)` in a custom loop, or prune at once by `prune_at_once`."
        )
    return current


def gathered(criterion: Any, weights: list, collectors: dict[tuple[str, ...], Callable]) -> dict[int, dict[str, Any]]:
    """What a criterion needs of some weights, from the data in use.

    Args:
        criterion: a `Criterion`.
        weights: list of `keras_mot.layers.TransformedWeight`.
        collectors: dictionary from names of fields to the function that computes them, of the model, the weights, the
            names that are needed, and the `PruningEvidence`; it returns what this function does.

    Returns:
        Dictionary from the id of each variable to fields of `WeightEvidence`.
    """
    result = {id(weight.variable): {} for weight in weights}
    if not criterion.needs:
        return result
    model, evidence = require(criterion)
    for names, collect in collectors.items():
        needed = [name for name in criterion.needs if name in names]
        if needed:
            for key, values in collect(model, weights, needed, evidence).items():
                result[key].update(values)
    return result
