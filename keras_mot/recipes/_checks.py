"""What is found out about model, data, loss and metric before any stage begins."""

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._messages import describe
from keras_mot._numbers import is_whole
from keras_mot.analysis.metrics import labels_by_name
from keras_mot.analysis.subjects import predict
from keras_mot.data.inputs import check_shapes, fixed_batch_size
from keras_mot.data.pairs import batches, head_of, is_pair, labels_of
from keras_mot.layers import transformed_weights
from keras_mot.layers.activation_quantizer import is_quantized
from keras_mot.layers.finding import require_built
from keras_mot.recipes.fine_tuning import first_not_finite
from keras_mot.recipes.objective import kind_of_labels

_LARGEST_SEED = 2**32 - 1  # NumPy takes no larger one


def check_model(model, function):
    """Refuses what is no built, plain Keras model with finite weights, for a function of this name."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"`{function}` expects a Keras model; received {describe(model)}.")
    require_built(model, function)
    if not model.weights:
        raise ValueError(f"'{model.name}' has no weights: there is nothing to compress.")
    if is_quantized(model) or transformed_weights(model):
        raise ValueError(
            f"'{model.name}' is pruned, clustered or quantized already: strip it, or pass the float model."
        )
    spoilt = first_not_finite(model)
    if spoilt is not None:
        count = int((~np.isfinite(numpy_value(spoilt))).sum())
        raise ValueError(
            f"Weight '{spoilt.path}' holds {count} NaN or infinite values. Its training may have diverged: pass the "
            "model of an earlier checkpoint."
        )


def check_seed(seed):
    """The seed as an `int`; refuses what does not seed the random numbers of NumPy, Python and the backend."""
    if not is_whole(seed) or not 0 <= seed <= _LARGEST_SEED:
        raise ValueError(f"`seed` should be an integer from 0 to 2**32 - 1; received {describe(seed)}.")
    return int(seed)


def check_inputs(model, data):
    """Refuses samples of other shapes than the inputs of a model that tells them."""
    for name, given in data.named():
        check_shapes(model, given[0] if is_pair(given) else head_of(given)[0], f"`{name}`")


def try_model(model, data):
    """The outputs of a model for the first samples, as it gives them; raises a ValueError if it cannot be called."""
    x, _ = data.head(_head_size(model))
    try:
        return model.predict_on_batch(x)  # on JAX, a failing `model.predict` takes the variables with it
    except Exception as error:
        raise ValueError(f"'{model.name}' cannot be called on the training data: {error}") from error


def _head_size(model):
    return fixed_batch_size(model) or 64


def check_validation_labels(objective, data, outputs):
    """Refuses labels of the validation data that the outputs of the model have no place for.

    Args:
        objective: the `Objective`, chosen by the training data.
        data: the `TrainingData`.
        outputs: dictionary from the names of the outputs, or `None` for the only one, to arrays of the first samples.
    """
    if data.validation is None:
        return
    labels = labels_of(data.validation)
    for name, array in (labels_by_name(labels, list(outputs)) if objective.outputs else {None: labels}).items():
        where = "`validation_data`" if name is None else f"`validation_data`, output '{name}'"
        try:
            kind = kind_of_labels(array, outputs[name])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if kind is None and objective.kinds[name] is not None:
            raise ValueError(
                f"{where}: the labels have shape {array.shape}; those of `train_data` suit the outputs, of shape "
                f"{(None, *outputs[name].shape[1:])}."
            )


def try_loss(model, objective, data, outputs):
    """Computes the loss from labels and `outputs`; raises a ValueError if that fails or gives no finite number."""
    x, y = data.head(_head_size(model))
    judge = keras.Model()  # has no layers: it only computes losses, from labels and outputs
    try:
        judge.compile(loss=objective.loss, loss_weights=objective.loss_weights)
        tensors = [keras.tree.map_structure(keras.ops.convert_to_tensor, item) for item in (x, y, outputs)]
        value = keras.ops.convert_to_numpy(judge.compute_loss(*tensors, training=False))
    except Exception as error:
        raise ValueError(
            f"The loss cannot be computed from labels {_shapes(y)} and outputs {_shapes(outputs)} "
            f"({objective.description}): {error or type(error).__name__}{_other_labels(objective)}"
        ) from error
    if np.size(value) != 1 or not np.isfinite(value).all():
        raise ValueError(
            f"The loss of '{model.name}' on the first samples is {value if np.size(value) == 1 else describe(value)} "
            f"({objective.description}): a finite number is needed to train."
        )


def _other_labels(objective):
    """What to do where labels are one-hot and the loss takes numbers of classes, or the other way round."""
    kind, sparse = objective.kinds.get(None), "sparse_" in objective.description
    if "crossentropy" not in objective.description:
        return ""
    if kind == "one-hot" and sparse:
        return (
            " The labels are one-hot: give `loss='categorical_crossentropy'`, or numbers of classes, "
            "`labels.argmax(axis=-1)`."
        )
    if kind == "classes" and not sparse:
        return (
            " The labels are numbers of classes: give `loss='sparse_categorical_crossentropy'`, or one-hot labels, "
            "`keras.utils.to_categorical(labels)`."
        )
    return ""


def _shapes(structure):
    return keras.tree.map_structure(lambda leaf: f"of shape {np.shape(leaf)}", structure)


def try_metric(model, metric, data):
    """The metric of the given model, as (one number, dictionary of outputs); raises a ValueError if it is none."""
    value, parts = keras_metric(model, metric, data)
    if not np.isfinite([value, *parts.values()]).all():
        raise ValueError(f"`metric` '{metric.name}' is {value} for the model as it is: a finite number is needed.")
    return value, parts


def keras_metric(model, metric, data):
    """The metric of a Keras model over data, as (one number, dictionary from outputs to numbers)."""
    accumulator = metric.start()
    for number, (x, y) in enumerate(batches(data, 256)):
        try:
            outputs = predict(model, x)
        except Exception as error:
            raise ValueError(
                f"'{model.name}' cannot be called on batch {number} (counted from 0) of the data to measure on, inputs "
                f"{_shapes(x)}: {error}"
            ) from error
        accumulator.add(y, outputs)
    return accumulator.result(), accumulator.parts()


def check_accuracy(metric, kinds):
    """Refuses accuracy of an output whose labels are no classes: it would be a number without a meaning.

    Args:
        metric: as of `compress`.
        kinds: dictionary from outputs (`None`: the only one) to the kinds of their labels.
    """
    asked = metric if isinstance(metric, dict) else dict.fromkeys(kinds, metric)
    for output, name in asked.items():
        if isinstance(name, str) and name in ("accuracy", "acc") and kinds.get(output) == "numbers":
            where = "" if output is None else f" of '{output}'"
            raise ValueError(
                f"`metric`: the labels{where} are numbers, and no classes, so that there is no accuracy: ask for "
                "'mae', 'mse' or 'r2', for several outputs in a dictionary from outputs to metrics."
            )
