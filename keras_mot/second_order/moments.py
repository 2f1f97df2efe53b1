"""Second moments of layers' inputs: H = X'X, summed over samples and positions, in batches."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from keras_mot._keras import no_gradients
from keras_mot._progress import progress_bar
from keras_mot.second_order.matrices import WeightMatrices
from keras_mot.second_order.walking import Walk, shown_calls, unrolled

_ROUNDING = 1e-6  # the error of a sum in float32, as a share of it
_MOST_IN_DOUBLE = 4096  # rows up to which sums are kept in double precision


class Moments:
    """Sums over the rows of a matrix of inputs, for each group by itself.

    Args:
        groups: number of groups.
        rows: inputs of each.
        crossed: whether a second matrix of inputs is given beside the first.

    Attributes:
        second: H = X'X, array of shape (groups, rows, rows), float64 up to 4096 rows, float32 beyond.
        cross: X'Z, if there is a second matrix Z of inputs, such as those of the original model; its products with the
            original weights V, `cross @ V`, are X'Y for that model's outputs Y. `None` otherwise.
        first: the sums of the columns of X: float64 array of shape (groups, rows).
        first_crossed: the same of Z, or `None`.
        count: how many rows X has had: samples times positions.
    """

    def __init__(self, groups: int, rows: int, crossed: bool = False):
        dtype = "float64" if rows <= _MOST_IN_DOUBLE else "float32"
        self.second = np.zeros((groups, rows, rows), dtype)
        self.cross = np.zeros_like(self.second) if crossed else None
        self.first = np.zeros((groups, rows))
        self.first_crossed = np.zeros((groups, rows)) if crossed else None
        self.count = 0

    def add(self, inputs: np.ndarray, others: np.ndarray | None = None) -> None:
        """Adds rows: float32 arrays of shape (groups, count, rows)."""
        turned = inputs.transpose(0, 2, 1)
        self.second += turned @ inputs
        self.first += inputs.sum(axis=1, dtype="float64")
        if self.cross is not None:
            self.cross += turned @ others
            self.first_crossed += others.sum(axis=1, dtype="float64")
        self.count += inputs.shape[1]

    @property
    def means(self) -> np.ndarray:
        """The means of the inputs: float64 array of shape (groups, rows)."""
        return self.first / max(self.count, 1)

    def centered(self, consumed: bool = False) -> "Moments":
        """The moments about the means: what counts where a bias takes the mean of the outputs up.

        Of inputs that never vary, nothing is left but rounding errors, which have no inverse: they are 0.

        Args:
            consumed: whether `second` and `cross` of these moments become those of the result, to save their memory.
        """
        result = Moments.__new__(Moments)
        whole = np.diagonal(self.second, axis1=1, axis2=2).copy()
        result.second = self._without(self.second, self.means, consumed)
        result.cross = None
        if self.cross is not None:
            result.cross = self._without(self.cross, self.first_crossed / max(self.count, 1), consumed)
        varying = np.diagonal(result.second, axis1=1, axis2=2) > _ROUNDING * whole
        result.second *= varying[:, :, None] & varying[:, None, :]
        if result.cross is not None:
            result.cross *= varying[:, :, None]
        result.first, result.count = np.zeros_like(self.first), self.count
        result.first_crossed = None if self.first_crossed is None else np.zeros_like(self.first_crossed)
        return result

    def _without(self, sums, means, consumed):
        """Sums of products less what the means make up."""
        products = self.first.astype(sums.dtype)[:, :, None] * means.astype(sums.dtype)[:, None, :]
        return np.subtract(sums, products, out=sums if consumed else products)


def gather_moments(model: keras.Model, weights: Sequence[WeightMatrices], batches: Iterable[Any]) -> list[Moments]:
    """The second moments of the inputs of several kernels, in one pass over data.

    Args:
        model: a built model of any kind; it is called eagerly, in inference.
        weights: kernels in it, as `matrices_of` has them for its layers, those within others included.
        batches: an iterable of inputs as the model takes them.

    Returns:
        A `Moments` for each kernel; one that the model never calls has a `count` of 0.

    Raises:
        ValueError: if inputs cannot be looked at, since a compiled loop computes them, or if some are not finite.

    Example:

    ```python
    weights = [each for layer in model.layers for each in matrices_of(layer)]
    for weight, moments in zip(weights, gather_moments(model, weights, [x_train[:128]])):
        print(weight.path, np.diagonal(moments.second[0]))
    ```
    """
    gathered = [Moments(*weight.shape[:2]) for weight in weights]
    watchers = _by_layer(weights, gathered)
    with unrolled(model), shown_calls(watchers), no_gradients():
        for batch in batches:
            model(batch, training=False)
    for weight, moments in zip(weights, gathered, strict=True):
        _check_finite(weight, moments)
    return gathered


def visit_in_order(
    model: keras.Model,
    weights: Sequence[WeightMatrices],
    batches: Iterable[Any],
    visit: Callable[[WeightMatrices, Moments], None],
    *,
    reference: keras.Model | None = None,
    reference_weights: Sequence[WeightMatrices] = (),
    around: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    around_reference: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    title: str = "layer by layer",
    progress: bool | None = None,
) -> None:
    """Visits kernels in the order of the graph, each when those before it have been visited, and may have changed.

    Only the moments of one layer are in memory at a time, beside what flows between two operations.

    Args:
        model: a functional model. What is nested in its operations is looked at as well.
        weights: kernels in it.
        batches: inputs as the model takes them. They are kept until the end.
        visit: function of a kernel and its `Moments`, which may change the kernel, and biases.
        reference: a copy of `model`, with other weights perhaps, whose inputs are the second matrix of `Moments`.
        reference_weights: the kernels of the reference, in the order of `weights`.
        around: function that returns a context in which operations of the model are called.
        around_reference: the same for `reference`.
        title: what is being done, for the progress bar.
        progress: whether to show a progress bar; `None`: on a terminal.

    Raises:
        ValueError: if `reference` has another graph, inputs cannot be looked at, or some are not finite.
    """
    batches = list(batches)
    walk = Walk(model, batches, around)
    other = None if reference is None else Walk(reference, batches, around_reference)
    if other is not None:
        _check_same_graph(walk, other, model, reference)
    partners = {id(weight): partner for weight, partner in zip(weights, reference_weights)}  # noqa: B905
    stops = walk.stops(_unique(weight.layer for weight in weights))
    around_walks = contextlib.nullcontext() if reference is None else unrolled(reference)
    with unrolled(model), around_walks, progress_bar(progress) as bar:
        task = bar.add_task(title, total=len(stops))
        for stop in stops:
            own = [weight for weight in weights if weight.layer is stop.layer]
            walk.go_to(stop.first)
            if other is not None:
                other.go_to(stop.first)
            for weight in own:
                moments = _seen_at(walk, stop, weight, other, partners.get(id(weight)))
                _check_finite(weight, moments)
                visit(weight, moments)
            bar.advance(task)


def _seen_at(walk, stop, weight, other, partner):
    moments = Moments(*weight.shape[:2], other is not None)
    seen, expected = [], []
    looks = walk.look(stop, _rows_into(weight, seen.append))
    if other is not None:
        there = next(each for each in other.stops([partner.layer]))
        other_looks = other.look(there, _rows_into(partner, expected.append))
    for _ in looks:
        if other is not None:
            next(other_looks)
        while seen:
            moments.add(seen.pop(0), *([expected.pop(0)] if other is not None else []))
    return moments


def _by_layer(weights, gathered):
    watchers = {}
    for layer in _unique(weight.layer for weight in weights):
        own = [pair for pair in zip(weights, gathered, strict=True) if pair[0].layer is layer]
        watchers[layer] = functools.partial(_see_all, own)
    return watchers


def _see_all(pairs, *args, **kwargs):
    for weight, moments in pairs:
        moments.add(_rows(weight, args, kwargs))


def _rows_into(weight, take):
    return lambda *args, **kwargs: take(_rows(weight, args, kwargs))


def _rows(weight, args, kwargs):
    try:
        return weight.rows_of(*args, **kwargs)
    except Exception as error:
        raise ValueError(
            f"The inputs of '{weight.path}' cannot be looked at ({type(error).__name__}: {str(error)[:200]}). A layer "
            "around it may call it in a compiled loop: leave it out."
        ) from error


def _check_finite(weight, moments):
    if not np.isfinite(moments.second).all():
        raise ValueError(
            f"Some inputs of '{weight.path}' are NaN or infinite on the data. Look at the data; if the model means "
            "it, as log(0), leave this layer out."
        )


def _check_same_graph(walk, other, model, reference):
    ours, theirs = ([type(call.operation) for call in each.graph.calls] for each in (walk, other))
    if len(ours) != len(theirs):
        raise ValueError(
            f"The reference '{reference.name}' should be a copy of '{model.name}', with other weights perhaps: it has "
            f"{len(theirs)} operations, not {len(ours)}."
        )


def _unique(layers):
    return list({id(layer): layer for layer in layers}.values())
