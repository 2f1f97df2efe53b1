"""The base class of weight transforms."""

import contextlib
import contextvars
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np

_SHARED = contextvars.ContextVar("shared_updaters", default=None)


@contextlib.contextmanager
def updaters_by_reference():
    """While open, configurations of transforms refer to the updaters themselves: for copies that no file holds."""
    token = _SHARED.set([])
    try:
        yield
    finally:
        _SHARED.reset(token)


def by_reference(value: Any) -> Any:
    """What stands for an object in a configuration: its own, or a reference within `updaters_by_reference`."""
    shared = _SHARED.get()
    if shared is None or value is None:
        return keras.saving.serialize_keras_object(value)
    shared.append(value)
    return {"shared": len(shared) - 1}


def resolved(config: Any) -> Any:
    """The object that `by_reference` stood for."""
    if isinstance(config, dict) and set(config) == {"shared"}:
        return _SHARED.get()[config["shared"]]
    return keras.saving.deserialize_keras_object(config)


class WeightTransform(keras.layers.Layer):
    """A layer that maps a stored float weight to the weight that the forward pass uses.

    A subclass implements `build(weight_shape)`, which creates its state as non-trainable variables (or
    trainable ones, if it learns), and `call(weight)`, a differentiable function from a tensor of shape
    `weight_shape` to a tensor of the same shape and dtype, made of element-wise work alone. What follows a
    schedule is not done in `call`: it is done between training steps by `updater`.

    Args:
        updater: `None` for a transform whose state never changes by itself, or a serialisable, hashable
            object with four methods. `due(step)` says whether the state is to be updated once `step`
            training steps have ended (0: before the first). `update(weights, step)` does it, for all the
            weights (`keras_mot.layers.TransformedWeight`) whose transforms hold an equal updater. `check(weights)`
            raises an error if weights do not suit it, given (path, shape, axes) of each. The static
            `logs(weights)` returns a dictionary of floats for the logs of `fit`, given the weights of all
            updaters of its type. Five methods are optional: `initialize(weights)` gives transforms that
            start from the weights' values their first state, when they are attached; `follow(weights, step)` is
            called in place of `update` when a transform before this one in the stack has been updated;
            `keeps_loaded(weights, step)` says whether a state that weights were loaded with, before any update, stays;
            `before_training(weights)` raises an error if `fit` lacks what updates need; `before_strip(weights)` raises
            an error or warns if it is too early to strip.
        **kwargs: arguments of `keras.layers.Layer`.

    Attributes:
        axes: what the weight's axes mean (`keras_mot.layers.WeightAxes`), set before `build` when the transform is
            attached to a layer; `None` otherwise.
        step: training steps that have ended since the transform was attached.
        updated_at: the step of the last update, or -1 if there was none.
        kind: what the transform makes of a weight, in one word; `None` for one that is of no common kind.
        followers: the kinds that may come after it in a stack; `None` for all.
    """

    kind: ClassVar[str | None] = None
    followers: ClassVar[tuple[str, ...] | None] = None

    def __init__(self, updater: Any = None, **kwargs: Any):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.updater = updater
        self.axes = None
        self.step = 0
        self.updated_at = -1

    def suit(self, weight_shape: tuple[int, ...], axes: Any) -> None:
        """Settles what depends on the weight that a technique chose this transform for, before it is built.

        Args:
            weight_shape: shape of the weight.
            axes: what its axes mean, `keras_mot.layers.WeightAxes`.
        """

    def follow_assignment(self, before: Any, after: Any) -> Any:
        """Takes note that the layer itself assigned its weight in its call, as spectral normalization does.

        Args:
            before: tensor of the weight's shape, what the whole stack returned.
            after: tensor of the weight's shape, what it is to return now.

        Returns:
            `after`, with `before` where this transform lets no change through.
        """
        return after

    def penalised(self, weight: Any) -> Any:
        """What a penalty on a weight sees: what `call` returns, without factors that are not the layer's own."""
        return self.call(weight)

    def freeze(self, weight):
        """The weight that stripping leaves: what `call` returns, unless training uses an approximation of it.

        Args:
            weight: tensor of the weight's shape, outside of any compiled function.

        Returns:
            A tensor of the same shape and dtype.
        """
        return self.call(weight)

    def get_config(self):
        """The constructor's arguments; the updater goes along, so that a loaded model continues."""
        return {**super().get_config(), "updater": by_reference(self.updater)}

    @classmethod
    def from_config(cls, config):
        """The transform that `get_config` described."""
        return cls(**{**config, "updater": resolved(config.get("updater"))})

    def get_build_config(self):
        """Nothing: what a loaded transform is attached to builds it, and knows the weight's shape and axes."""
        return None

    # The progress of the schedule is kept in Python and written beside the variables: a variable for it
    # would have to be read back from the device, or synchronised with JAX's trainer, after every step.

    def save_own_variables(self, store):
        """Saves the variables and the progress of the schedule."""
        super().save_own_variables(store)
        store["progress"] = np.array([self.step, self.updated_at], "int64")

    def load_own_variables(self, store):
        """Loads the variables and the progress of the schedule.

        Raises:
            ValueError: if the file has nothing for this transform.
        """
        if self.variables and not store.keys():
            raise ValueError(
                f"The file has nothing for the {type(self).__name__} '{self.name}': it was saved from a model with "
                "other transforms. Load it into a model that was pruned, clustered or quantized the same way."
            )
        super().load_own_variables({key: store[key] for key in store.keys() if key != "progress"})  # noqa: SIM118
        if "progress" in store.keys():  # noqa: SIM118
            self.step, self.updated_at = (int(value) for value in store["progress"])


def order_error(stack: Sequence[WeightTransform]) -> str | None:
    """Why transforms cannot follow each other in this order, by what each declares; `None` if they can."""
    for place, first in enumerate(stack):
        for second in stack[place + 1 :]:
            if first.followers is not None and second.kind is not None and second.kind not in first.followers:
                can = " or ".join(first.followers)
                if not can:
                    return (
                        "it is quantized, and any change would leave the integers. Prune and cluster first (what "
                        "quantizes a model keeps its masks and codebooks), or strip it."
                    )
                return (
                    f"it has a {first.kind} ({type(first).__name__}), which a {second.kind} ({type(second).__name__}) "
                    f"cannot follow; {can} can. Prune first, then cluster, then quantize."
                )
    return None
