"""What all stages of recipes have in common."""

import abc
import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import keras

from keras_mot._config import Config
from keras_mot._keras import flatten_layers
from keras_mot._messages import describe
from keras_mot.layers.selecting import check_each_matches, matches_layer
from keras_mot.recipes.fine_tuning import FineTune
from keras_mot.transforms import FakeQuantize, Mask, PaletteTransform

_TRANSFORMS = (Mask, PaletteTransform, FakeQuantize)
_VERBS = {"mask": "pruned", "codebook": "clustered", "quantization": "quantized"}


def place_of(kind: str) -> int:
    """The rank of stages that attach transforms of a kind: those that may come before it, as transforms declare."""
    return 1 + 2 * sum(kind in each.followers for each in _TRANSFORMS)


def order_in_words() -> str:
    """In which order weights are treated, as transforms declare it."""
    first, *between, last = sorted(_VERBS, key=place_of)
    return f"{_VERBS[first]} first, {''.join(f'then {_VERBS[kind]}, ' for kind in between)}and {_VERBS[last]} last"


@dataclasses.dataclass(frozen=True)
class Stage(Config, abc.ABC):
    """One step of a recipe: it changes a model, and trains it.

    A stage of your own is a frozen dataclass with `key`, its name in recipes; its place among the others; a field
    `fine_tune` of type `FineTune` or `None` unless it never trains; and `apply`. Its place follows from `kind`, the
    kind of the transforms that it attaches, since each transform declares what may follow it; `after_kind` is for a
    stage that works on these. Without either it may stand anywhere, as often as one likes. `rank` sets the place
    itself: stages come in the order of their ranks, 1 for a mask, 3 for a codebook, 5 for what quantizes.

    Attributes:
        key: name in recipes.
        kind: `kind` of the transforms that it attaches, such as `keras_mot.transforms.Mask.kind`; or `None`.
        after_kind: the kind that it works on, and ends; or `None`.
        last: whether nothing may follow it.
        taught: whether, by default, it learns from the float model that the recipe began with, where that chooses one
            of several classes.
        plain: whether it works on models without transforms alone: no mask or codebook may be attached by then.
        rank: its place; 0 for any.
    """

    key: ClassVar[str]
    kind: ClassVar[str | None] = None
    after_kind: ClassVar[str | None] = None
    last: ClassVar[bool] = False
    taught: ClassVar[bool] = True
    plain: ClassVar[bool] = False
    rank: ClassVar[int] = 0
    # Without types: subclasses declare them as fields, in an order of their own.
    fine_tune = None
    skip = ()
    overrides = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "rank" in vars(cls):
            return
        if cls.kind is not None:
            cls.rank = place_of(cls.kind)
        elif cls.after_kind is not None:
            cls.rank = place_of(cls.after_kind) + 1

    @abc.abstractmethod
    def apply(self, model: keras.Model, run: Any) -> keras.Model:
        """The model as it is trained in this stage; transforms of earlier stages stay attached.

        Args:
            model: the model of the stage before.
            run: what is known of the run: `run.steps(fine_tune)`, the training steps; `run.calibration(samples)`,
                inputs to calibrate with; `run.labelled(samples)`, unseen inputs with labels and the loss, or `None`;
                `run.progress`; and `run.quantizes`, whether a stage of the recipe does.
        """

    def trained(self, model: keras.Model) -> keras.Model:
        """What the stage hands on once its model is trained; by default, the model as it is."""
        return model

    def export_options(self) -> dict[str, Any]:
        """Arguments of the exporter, such as `export_litert`, for the file of this stage."""
        return {}

    def pruning_epochs(self) -> int:
        """Epochs in which the model may not be at its best yet, because the stage is still at work."""
        return 0


def check_fine_tune(value):
    if value is not None and not isinstance(value, FineTune):
        raise TypeError(f"`fine_tune` should be a `FineTune`, or None for no training; received {describe(value)}.")


def check_skip(stage):
    if isinstance(stage.skip, str) or not isinstance(stage.skip, list | tuple):
        raise TypeError(f"`skip` should be a list of regular expressions; received {describe(stage.skip)}.")
    object.__setattr__(stage, "skip", tuple(stage.skip))
    _check_expressions("skip", stage.skip)


def check_overrides(stage, check_value):
    """Checks what a stage has for some layers in place of its main setting: regular expressions, and values.

    Args:
        stage: a stage with the field `overrides`, a dictionary or `None`.
        check_value: function from a name for messages and a value, which raises an error for a wrong one.
    """
    if stage.overrides is None:
        return
    if not isinstance(stage.overrides, Mapping):
        raise TypeError(
            "`overrides` should be a dictionary from regular expressions to numbers; received "
            f"{describe(stage.overrides)}."
        )
    object.__setattr__(stage, "overrides", dict(stage.overrides))
    _check_expressions("overrides", stage.overrides)
    for expression, value in stage.overrides.items():
        check_value(f"overrides[{expression!r}]", value)


def _check_expressions(name, expressions):
    for expression in expressions:
        try:
            re.compile(expression)
        except (re.error, TypeError) as error:
            raise ValueError(f"`{name}` holds {expression!r}, which is no regular expression: {error}.") from error


def check_skipped(stage, model):
    """Raises a `ValueError` if a stage names a layer, in `skip` or `overrides`, that a model does not have."""
    layers = [layer for layer in flatten_layers(model) if layer is not model]
    for name, expressions in (("skip", stage.skip), ("overrides", stage.overrides or ())):
        try:
            check_each_matches(expressions, matches_layer, layers, [layer.name for layer in layers])
        except ValueError as error:
            raise ValueError(f"Stage '{stage.key}', `{name}`: {error}") from error
