"""Which loss and metric suit an output and its labels."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_mot.analysis.probabilities import are_probabilities

_LOSS_OF_KIND = {
    "classes": "sparse_categorical_crossentropy",
    "one-hot": "categorical_crossentropy",
    "yes or no": "binary_crossentropy",
    "numbers": "mean_squared_error",
}
_CROSSENTROPIES = {name for name in _LOSS_OF_KIND.values() if name.endswith("crossentropy")}


@dataclasses.dataclass(frozen=True)
class Objective:
    """What to train for and what to report.

    Attributes:
        loss: for `compile`.
        loss_weights: for `compile`.
        description: what was chosen and why, for the user.
        metric: for `keras_mot.analysis.measure`.
        fit_metrics: for `compile`.
        probabilities: whether the outputs are probabilities.
        kinds: dictionary from the outputs, or from `None` for the only one, to the kind of their labels, see
            `kind_of_labels`.
    """

    loss: object
    loss_weights: object
    description: str
    metric: object
    fit_metrics: list
    probabilities: bool
    kinds: Mapping[str | None, str | None]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, where there are several."""
        return tuple(name for name in self.kinds if name is not None)

    @property
    def chooses_a_class(self) -> bool:
        """Whether the only output says which of several classes it is."""
        return self.kinds.get(None) in ("classes", "one-hot")


def choose_objective(model, name, labels, outputs):
    """The loss that was asked for by name, else the one in the saved file, else one that suits the labels.

    Args:
        model: the model, compiled if it was saved so.
        name: the name of a Keras loss, a loss itself, or `None`.
        labels: array of all labels.
        outputs: array, the model's outputs for the first samples.
    """
    kind = kind_of_labels(labels, outputs)
    saved = model.loss if name is None and model.compiled else None
    loss, description = loss_and_description(_only(name, "loss"), _only(saved, "loss"), kind, labels, outputs)
    if kind is None:
        check_unusual(loss, labels, outputs)
    metric, fit_metrics = suitable_metrics(kind, outputs)
    weights = saved_loss_weights(model) if saved is not None else None
    return Objective(
        loss,
        _only(weights, "loss_weights"),
        f"loss: {description}",
        metric,
        fit_metrics,
        are_probabilities(outputs),
        {None: kind},
    )


def _only(value, argument):
    """What a list or dictionary holds for the one output."""
    if not isinstance(value, list | tuple | dict):
        return value
    if len(value) != 1:
        raise ValueError(f"`{argument}` has {len(value)} items; the model has one output.")
    return next(iter(value.values() if isinstance(value, dict) else value))


def saved_loss_weights(model):
    """The weights of the losses that a model was compiled with, or `None`."""
    return (model.get_compile_config() or {}).get("loss_weights")


def suitable_metrics(kind, outputs):
    """The metric for `measure` and those for `compile` that suit labels."""
    if kind in ("classes", "one-hot"):
        return "accuracy", ["accuracy"]
    if kind == "yes or no":
        single = outputs.shape[-1] == 1 or outputs.ndim == 1
        return _right_answers(outputs), ["accuracy"] if single and are_probabilities(outputs) else []
    return _mean_squared_error, []


def loss_and_description(asked, saved, kind, labels, outputs):
    """The loss that a run trains with, and what to say of it: asked for, saved with the model, or guessed."""
    if asked is not None and not isinstance(asked, str):
        return asked, f"{_name_of(asked)}, as given"
    if asked is not None:
        return _named(asked, outputs), f"{asked}, as asked for{_on_logits(asked, outputs)}"
    if saved is not None:
        return saved, f"{_name_of(saved)}, from the saved model"
    if kind is None:
        raise ValueError(
            f"No loss can be inferred for labels of shape {labels.shape} and type {labels.dtype} and outputs "
            f"of shape {(None, *outputs.shape[1:])}: give one as `loss`."
        )
    name = _LOSS_OF_KIND[kind]
    return _named(name, outputs), f"{name}, inferred from labels ({kind}) and output{_on_logits(name, outputs)}"


def _on_logits(name, outputs):
    return ", on logits" if name in _CROSSENTROPIES and not are_probabilities(outputs) else ""


def check_unusual(loss, labels, outputs):
    """Refuses labels of a shape that a loss of Keras would stretch, or fail on.

    Losses of the user's take what they like, and connectionist temporal classification has labels of another shape than
    outputs or classes.
    """
    name = _name_of(loss)
    of_keras = isinstance(loss, str) or getattr(loss, "__module__", "").startswith("keras.")
    if of_keras and "ctc" not in name.lower():
        raise ValueError(
            f"The labels have shape {labels.shape}, the outputs {(None, *outputs.shape[1:])}: the loss {name} needs "
            f"labels of the shape of the outputs, or whole numbers of shape {(None, *outputs.shape[1:-1])} for classes."
        )


def kind_of_labels(labels, outputs):
    """`"classes"`, `"one-hot"`, `"yes or no"`, `"numbers"`, or `None` if labels and outputs do not fit."""
    whole = labels.dtype.kind in "iub" or bool((labels == np.round(labels)).all())
    same_shape = labels.shape[1:] == outputs.shape[1:] or _squeezed(labels) == _squeezed(outputs)
    binary = whole and bool(((labels == 0) | (labels == 1)).all())
    if same_shape:
        if not binary:
            return "numbers"
        one_hot = labels.ndim > 1 and labels.shape[-1] > 1 and bool((labels.sum(-1) == 1).all())
        return "one-hot" if one_hot else "yes or no"
    if whole and outputs.shape[-1] > 1 and _squeezed(labels) == outputs.shape[1:-1]:
        classes = outputs.shape[-1]
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"The labels go from {labels.min()} to {labels.max()}; the model has {classes} outputs, for "
                f"the classes 0 to {classes - 1}."
            )
        return "classes"
    return None


def _squeezed(array):
    return array.shape[1:-1] if array.ndim > 1 and array.shape[-1] == 1 else array.shape[1:]


def _named(name, outputs):
    import keras

    try:
        loss = keras.losses.get(name)
    except ValueError as error:
        raise ValueError(
            f"`loss` {name!r} is not the name of a Keras loss, such as 'categorical_crossentropy'."
        ) from error
    if name in _CROSSENTROPIES and not are_probabilities(outputs):
        camel = "".join(part.capitalize() for part in name.split("_"))
        return getattr(keras.losses, camel)(from_logits=True)
    return loss


def _name_of(loss):
    if isinstance(loss, str):
        return loss
    return getattr(loss, "name", None) or getattr(loss, "__name__", type(loss).__name__)


def _right_answers(outputs):
    threshold = 0.5 if are_probabilities(outputs) else 0.0

    def accuracy(y_true, y_pred):
        return float(((y_pred > threshold) == (y_true.reshape(y_pred.shape) > 0.5)).mean())

    return accuracy


def _mean_squared_error(y_true, y_pred):
    return float(np.square(y_pred - np.asarray(y_true, "float32").reshape(y_pred.shape)).mean())


_mean_squared_error.__name__ = "mean squared error"
_mean_squared_error.greater_is_better = False
