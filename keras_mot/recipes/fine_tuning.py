"""Fine-tuning between the stages of a recipe, with or without a teacher."""

import dataclasses
import math

import keras
import numpy as np
from keras import ops

from keras_mot._arrays import numpy_value
from keras_mot._config import Config
from keras_mot._messages import describe, nearest
from keras_mot._numbers import check_whole, is_number, make_plain

# By class: an instance would create variables, and so initialise the backend when the package is imported.
_OPTIMIZERS = {
    name.lower(): value
    for name, value in vars(keras.optimizers).items()
    if isinstance(value, type)
    and issubclass(value, keras.optimizers.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer")
}
_SCHEDULES = ("constant", "cosine", "linear")
_LEAST_PROBABILITY = 1e-3
_TAUGHT = 0.5  # the weight of distillation by default


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class FineTune(Config):
    """How a model is trained in a stage.

    Args:
        epochs: passes over the training data.
        learning_rate: of the first step.
        optimizer: name of a Keras optimizer, such as "adam", "lamb" or "sgd".
        schedule: how the learning rate goes on: "constant", or down to 0 by the last step, "cosine" or "linear".
        batch_size: samples of a step, where the training data are arrays.
        patience: epochs without a better validation metric (accuracy, if that is the metric; else the loss) after which
            training ends, and takes back the weights of the best epoch; `None` to train all epochs. Epochs in which a
            pruning schedule is still at work do not count.
        distillation: weight, from 0 to 1, of the loss against the outputs of the float model that the recipe began
            with; the rest is that of the loss against the labels (Hinton et al., 2015, "Distilling the Knowledge in a
            Neural Network", arXiv:1503.02531). By default 0.5 in all stages but `Tune` for models that choose one of
            several classes, better than by chance; 0 in others, and for models of several outputs. 0: labels alone.
        temperature: what distillation divides logits by.

    Raises:
        TypeError: if a value is of another type.
        ValueError: if it is out of range.
    """

    epochs: int = 1
    learning_rate: float = 1e-4
    optimizer: str = "adam"
    schedule: str = "constant"
    batch_size: int = 128
    patience: int | None = None
    distillation: float | None = None
    temperature: float = 3.0

    def __post_init__(self):
        make_plain(self)
        for name in ("epochs", "batch_size"):
            check_whole(name, getattr(self, name), 1)
        if self.patience is not None:
            check_whole("patience", self.patience, 1)
        for name, largest in (("learning_rate", math.inf), ("temperature", math.inf), ("distillation", 1.0)):
            if name == "distillation" and self.distillation is None:
                continue
            check_number(name, getattr(self, name), 0.0, largest)
            if name != "distillation" and not getattr(self, name):
                raise ValueError(f"`{name}` should be above 0; received 0.")
        if self.schedule not in _SCHEDULES:
            raise ValueError(f"`schedule` should be one of {_SCHEDULES}; received {describe(self.schedule)}.")
        if not isinstance(self.optimizer, str) or self.optimizer.lower() not in _OPTIMIZERS:
            raise ValueError(
                f"`optimizer` should be the name of a Keras optimizer, such as 'adam'; received "
                f"{describe(self.optimizer)}.{nearest(self.optimizer, _OPTIMIZERS)}"
            )

    def settled(self, taught: bool) -> "FineTune":
        """The same with a weight of distillation, if none was asked for.

        Args:
            taught: whether there is a float model to learn from, and classes to learn.
        """
        if self.distillation is not None:
            return self
        return dataclasses.replace(self, distillation=_TAUGHT if taught else 0.0)

    def make_optimizer(self, steps: int) -> keras.optimizers.Optimizer:
        """The optimizer.

        Args:
            steps: training steps that it will make.

        Returns:
            A new Keras optimizer.
        """
        rate = self.learning_rate
        if self.schedule == "cosine":
            rate = keras.optimizers.schedules.CosineDecay(rate, max(1, steps))
        elif self.schedule == "linear":
            rate = keras.optimizers.schedules.PolynomialDecay(rate, max(1, steps), end_learning_rate=0.0)
        return _OPTIMIZERS[self.optimizer.lower()](learning_rate=rate)


class SoftTargets(keras.distillation.LogitsDistillation):
    """Distillation by logits, for classifiers that return logits or probabilities.

    Args:
        temperature: what logits are divided by.
        probabilities: whether the models return probabilities.
    """

    def __init__(self, temperature, probabilities):
        # By name, Keras would take the divergence of the logits themselves.
        super().__init__(temperature=temperature, loss=keras.losses.KLDivergence())
        self._probabilities = probabilities

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        """Mean divergence of the student's softened probabilities from the teacher's, times the squared temperature."""
        teacher, student = (keras.tree.map_structure(self._logits, item) for item in (teacher_outputs, student_outputs))
        return super().compute_loss(teacher, student, **kwargs)

    def _logits(self, outputs):
        return ops.log(ops.maximum(outputs, _LEAST_PROBABILITY)) if self._probabilities else outputs


def can_teach(teacher: keras.Model, student: keras.Model) -> bool:
    """Whether two models have inputs and outputs of the same ranks and types, where these are known."""
    for name in ("inputs", "outputs"):
        ours, theirs = (getattr(model, name, None) for model in (teacher, student))
        if ours is None or theirs is None:
            continue
        if [(len(each.shape), each.dtype) for each in ours] != [(len(each.shape), each.dtype) for each in theirs]:
            return False
    return True


def train(model, settings, data, objective, *, teacher=None, watched="loss", start_of_patience=0, callbacks=()):
    """Trains a model in place.

    Args:
        model: a model, which need not be compiled.
        settings: a `FineTune`.
        data: a `TrainingData`.
        objective: an `Objective`.
        teacher: the float model, for distillation.
        watched: what early stopping looks at, "accuracy" or "loss".
        start_of_patience: the first epoch that early stopping looks at.
        callbacks: list of Keras callbacks.

    Returns:
        Dictionary of the logs of the last epoch.

    Raises:
        FloatingPointError: if the loss or a weight is not finite.
    """
    trained = model
    metrics = list(objective.fit_metrics)
    optimizer = settings.make_optimizer(data.steps(settings.batch_size) * settings.epochs)
    if settings.distillation:
        trained = keras.distillation.Distiller(
            teacher,
            model,
            distillation_losses=SoftTargets(settings.temperature, objective.probabilities),
            student_loss_weight=1.0 - settings.distillation,
            name="distiller",
        )
        # `Distiller` takes no weights of losses.
        trained.compile(optimizer, _weighted(objective.loss, objective.loss_weights), metrics=metrics)
    else:
        model.compile(optimizer, objective.loss, loss_weights=objective.loss_weights, metrics=metrics)
    callbacks = [*callbacks, keras.callbacks.TerminateOnNaN()]
    arguments = {"epochs": settings.epochs, **data.fit_arguments(settings.batch_size)}
    if settings.patience is not None:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                f"val_{watched}",
                mode="max" if watched == "accuracy" else "min",
                patience=settings.patience,
                restore_best_weights=True,
                start_from_epoch=start_of_patience,
            )
        )
        arguments |= data.validation_arguments(settings.batch_size)
    history = trained.fit(**arguments, verbose=0, callbacks=callbacks).history
    logs = {name: float(values[-1]) for name, values in history.items()}
    spoilt = first_not_finite(model)
    if not math.isfinite(logs["loss"]) or spoilt is not None:
        where = data.not_finite()
        reason = f"{where} holds NaN or infinite values: mend the data." if where else "Lower the learning rate."
        what = f"the loss is {logs['loss']}" if spoilt is None else f"weight '{spoilt.path}' is not finite"
        raise FloatingPointError(f"Training diverged: {what}. {reason}")
    return logs


def _weighted(loss, weight):
    """A loss times its weight; `None` is 1."""
    if weight is None:
        return loss
    function = keras.losses.get(loss)
    return lambda labels, outputs: weight * function(labels, outputs)


def first_not_finite(model):
    """The first variable of a model that holds NaN or infinite values, or `None`.

    A loss may be finite beside gradients that are not: some backends take the larger of NaN and 0 to be 0.
    """
    for variable in model.weights:
        if "float" in variable.dtype and not np.isfinite(numpy_value(variable)).all():
            return variable
    return None


def check_number(name, value, least, most):
    """Raises an error if a setting is not a number in [least, most]."""
    if not is_number(value):
        raise TypeError(f"`{name}` should be a number; received {describe(value)}.")
    if not (least <= value <= most and math.isfinite(value)):
        limits = f"from {least:g} to {most:g}" if math.isfinite(most) else f"at least {least:g}, and finite"
        raise ValueError(f"`{name}` should be {limits}; received {value}.")
