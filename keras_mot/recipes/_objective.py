"""Which loss and metric suit a model and its labels."""

import dataclasses

import numpy as np

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
        kind: of the labels, see `kind_of_labels`.
    """

    loss: object
    loss_weights: object
    description: str
    metric: object
    fit_metrics: list
    probabilities: bool
    kind: str | None


def choose_objective(model, name, labels, outputs):
    """The loss that was asked for by name, else the one in the saved file, else one that suits the labels.

    Args:
        model: the model, compiled if it was saved so.
        name: the name of a Keras loss, a loss itself, or `None`.
        labels: array of all labels.
        outputs: array, the model's outputs for the first samples.
    """
    kind = kind_of_labels(labels, outputs)
    metric, fit_metrics = ("accuracy", ["accuracy"]) if kind in ("classes", "one-hot") else (_mean_squared_error, [])
    if kind == "yes or no":
        single = outputs.shape[-1] == 1 or outputs.ndim == 1
        metric, fit_metrics = (
            _right_answers(outputs),
            ["accuracy"] if single and _are_probabilities(outputs) else [],
        )
    loss_weights = None
    if name is not None and not isinstance(name, str):
        loss, description, name = name, f"loss: {_name_of(name)}, as given", None
    elif name is not None:
        loss, description = _named(name, outputs), f"loss: {name}, as asked for"
    elif model.compiled and model.loss is not None:
        config = model.get_compile_config() or {}
        loss, loss_weights = model.loss, config.get("loss_weights")
        description = f"loss: {_name_of(loss)}, from the saved model"
    elif kind is None:
        raise ValueError(
            f"No loss can be inferred for labels of shape {labels.shape} and type {labels.dtype} and outputs "
            f"of shape {(None, *outputs.shape[1:])}: give one as `loss`."
        )
    else:
        name = _LOSS_OF_KIND[kind]
        loss, description = _named(name, outputs), f"loss: {name}, inferred from labels ({kind}) and output"
    if name in _CROSSENTROPIES and not _are_probabilities(outputs):
        description += ", on logits"
    return Objective(loss, loss_weights, description, metric, fit_metrics, _are_probabilities(outputs), kind)


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
    if name in _CROSSENTROPIES and not _are_probabilities(outputs):
        camel = "".join(part.capitalize() for part in name.split("_"))
        return getattr(keras.losses, camel)(from_logits=True)
    return loss


def _name_of(loss):
    if isinstance(loss, str):
        return loss
    return getattr(loss, "name", None) or getattr(loss, "__name__", type(loss).__name__)


def _are_probabilities(outputs):
    # Judged by values, so that it holds for any model, whatever computes its last activation.
    if outputs.min() < 0.0 or outputs.max() > 1.0:
        return False
    single_or_many = outputs.shape[-1] == 1 or outputs.ndim == 1
    sums = outputs.sum(-1)
    return single_or_many or bool(np.allclose(sums, 1.0, atol=1e-2)) or bool((outputs > 0).all())


def _right_answers(outputs):
    threshold = 0.5 if _are_probabilities(outputs) else 0.0

    def accuracy(y_true, y_pred):
        return float(((y_pred > threshold) == (y_true.reshape(y_pred.shape) > 0.5)).mean())

    return accuracy


def _mean_squared_error(y_true, y_pred):
    return float(np.square(y_pred - np.asarray(y_true, "float32").reshape(y_pred.shape)).mean())


_mean_squared_error.__name__ = "mean squared error"
