"""Updating transforms between training steps, in `fit` and in custom loops.

The compiled step holds no schedule. `TransformSchedule` counts steps and calls the updaters of the transforms that
are due; `UpdateTransforms` does so from `fit`. Every `fit` of a model that has scheduled transforms runs
it, whether or not the user passes it: this module makes Keras's `CallbackList` add it, first in the list.
"""

import threading

import keras

from keras_mot._keras import callback_list_problem, extend, finish_callbacks, model_of
from keras_mot._messages import describe
from keras_mot.layers._steps import EpochSteps
from keras_mot.layers.attaching import weights_by_updater
from keras_mot.layers.finding import check_layer
from keras_mot.layers.transform_schedule import TransformSchedule
from keras_mot.layers.transformed import pending_transforms, transformed_weights


class UpdateTransforms(keras.callbacks.Callback):
    """Updates masks, and whatever else follows a schedule, between the steps of `fit`.

    `fit` adds it by itself; passing it changes nothing. It runs before all other callbacks, so that each
    checkpoint and each logger sees the state that belongs to the step. The logs gain what the updaters
    report, such as `sparsity`.

    In a custom loop either use the one call that each technique documents, such as
    `keras_mot.sparsity.update_pruning_step(model)`, or call this callback's methods where `fit` would.
    """

    # Its own work is done at the beginning of a step, in the training thread; see `on_train_batch_end`.
    async_safe = True
    _callback_list = None

    def __init__(self):
        super().__init__()
        self._schedule = None
        self._epoch_start = None
        self._steps = None
        self._ends_steps = False
        self._open_step = False
        self._thread = None
        self._report = {}

    def on_train_begin(self, logs=None):
        """Makes the update that is due before the first step."""
        self._thread = threading.get_ident()
        self._open_step = self._ends_steps = False
        self._start()

    def _start(self):
        for layer, transform in pending_transforms(model_of(self)):
            if hasattr(transform.updater, "initialize"):
                raise ValueError(
                    f"Layer '{layer.name}' is not built yet, and its {type(transform).__name__} starts from the values "
                    "of its weights: build the model before `fit`, with an `Input`, `model.build(input_shape)`, or "
                    "a call on data."
                )
        for updater, weights in weights_by_updater(transformed_weights(model_of(self))).items():
            if hasattr(updater, "before_training"):
                updater.before_training(weights)
        self._schedule = TransformSchedule(model_of(self), before_update=lambda: self.model)
        self._advance_to(0)

    def on_epoch_begin(self, epoch, logs=None):
        """Remembers the step at which the epoch begins."""
        self._require_begun()
        if self._schedule.stale:  # `BackupAndRestore` loads its checkpoint after this callback has begun
            self._start()
        self._epoch_start = self._schedule.elapsed
        self._steps = EpochSteps(model_of(self), (self.params or {}).get("steps"))

    def on_train_batch_begin(self, batch, logs=None):
        """Makes the updates due before step number `batch` of the epoch."""
        self._require_begun()
        if self._epoch_start is not None and batch >= 0:
            self._advance_before(batch)
            self._steps.begin(batch)
        elif self._open_step:  # a loop that calls nothing at the end of a step
            self._advance_to(self._schedule.elapsed + 1)
        self._open_step = True

    def _advance_before(self, batch):
        if self._steps.per_execution == 1:
            self._advance_to(self._epoch_start + batch)
        elif not self._schedule or self._schedule.due_at(self._epoch_start + batch):
            self._advance_to(self._epoch_start + self._steps.count(batch))
        else:  # the execution before may have been the short last one; asking would have the host wait for the device
            self._advance_to(self._epoch_start + max(batch - self._steps.per_execution, 0))

    def on_train_batch_end(self, batch, logs=None):
        """Makes the updates due after step number `batch`, and adds to the logs."""
        self._require_begun()
        in_epoch = self._epoch_start is not None and batch >= 0
        if in_epoch:
            self._steps.end(batch)
            self._ends_steps = True
        # With no other callback at work here, Keras calls this from threads of its own, in any order: then
        # nothing but the loggers can see the state, and the update waits for the next beginning.
        if threading.get_ident() == self._thread:
            if in_epoch:
                self._advance_to(self._epoch_start + self._steps.count(batch + 1))
            elif self._open_step:
                self._advance_to(self._schedule.elapsed + 1)
            self._open_step = False
        if logs is not None:
            logs.update(self._report)

    def on_test_begin(self, logs=None):
        """Makes the update due after the last step before `fit` validates: it must see what is saved."""
        if self._epoch_start is not None:
            finish_callbacks(self._callback_list)
            self._advance_to_end()

    def on_epoch_end(self, epoch=None, logs=None, batch=None):
        """Makes the update due after the last step of the epoch, and adds to the logs.

        `batch` is accepted because TFMOT's loops pass it here by name.
        """
        self._require_begun()
        if self._epoch_start is not None and self._steps.begun:
            self._advance_to_end()
        elif self._open_step:
            self._advance_to(self._schedule.elapsed + 1)
        self._open_step = False
        self._epoch_start = None
        if logs is not None:
            logs.update(self._report)

    def _advance_to(self, elapsed):
        if not self._schedule:  # TensorFlow builds a model without input shape in its first step
            self._schedule = TransformSchedule(model_of(self), before_update=lambda: self.model)
        if self._schedule.advance_to(elapsed) or elapsed == 0:
            # Read now: in the middle of JAX's epoch the variables are empty unless the trainer was synchronised.
            self._report = self._schedule.logs

    def _advance_to_end(self):
        # A loop of the user's may report no ends of steps at all.
        ended = self._steps.ended if self._ends_steps else self._steps.begun
        self._advance_to(self._epoch_start + self._steps.count(ended))

    def _require_begun(self):
        if self._schedule is None:
            raise ValueError(
                f"Call `set_model(model)` and `on_train_begin()` on `{type(self).__name__}` before the first step "
                "of a custom training loop."
            )


def update_step(model: keras.layers.Layer, steps: int = 1) -> bool:
    """The one call that a custom training loop makes after every training step, whatever techniques are at work.

    Counts the step, and updates masks, assignments and whatever else follows a schedule. `fit` does it by itself.

    Args:
        model: a model or layer with scheduled transforms.
        steps: training steps that have ended since the last call; 0 makes the update that is due before the
            first step.

    Returns:
        Whether anything has been updated. A stateless JAX loop must put its weights into the variables before
        the call, and take all variables from them after it, on the steps where this is true (`update_due`).

    Raises:
        TypeError: if `model` is not a Keras model or layer, or `steps` not an integer.
        ValueError: if nothing in `model` follows a schedule, or `steps` is negative.

    Example:

    ```python
    for x, y in batches:
        train_step(x, y)
        keras_mot.update_step(model)
    ```
    """
    return _schedule_of(model, "update_step").advance_to(_check_steps(steps))


def update_due(model: keras.layers.Layer, steps: int = 1) -> bool:
    """Whether `update_step(model, steps)` would update anything; reads and writes no variable."""
    return _schedule_of(model, "update_due").due_at(_check_steps(steps))


def _schedule_of(model, function):
    check_layer(model, function)
    schedule = TransformSchedule(model)
    if not schedule:
        raise ValueError(
            f"'{model.name}' has no weights that follow a schedule: pass the model that "
            "`prune_low_magnitude` or `cluster_weights` returned."
        )
    return schedule


def _check_steps(steps):
    if isinstance(steps, bool) or not hasattr(steps, "__index__"):
        raise TypeError(f"`steps` should be an integer number of training steps; received {describe(steps)}.")
    if steps < 0:
        raise ValueError(f"`steps` should be >= 0; received {steps}.")
    return int(steps)


def has_scheduled_transforms(model):
    """Whether any transform below `model` follows a schedule, or may do so once its layer is built."""
    return bool(pending_transforms(model)) or any(
        transform.updater is not None for weight in transformed_weights(model) for transform in weight.transforms
    )


_AUTOMATIC = [(has_scheduled_transforms, UpdateTransforms)]


def add_automatic_callback(applies, kind):
    """Makes `fit` add a callback by itself, before those of the user.

    Args:
        applies: function from a model to whether it needs the callback.
        kind: the callback's class, which takes no arguments.
    """
    _AUTOMATIC.append((applies, kind))


def _with_automatic(set_model):
    def extended(self, model):
        for applies, kind in reversed(_AUTOMATIC) if isinstance(model, keras.Model) else ():
            if applies(model):
                ours = [callback for callback in self.callbacks if isinstance(callback, kind)]
                others = [callback for callback in self.callbacks if not isinstance(callback, kind)]
                first = ours[0] if ours else kind()
                first._callback_list = self
                self.callbacks = [first, *others]
        set_model(self, model)

    return extended


extend(
    *(keras.callbacks.CallbackList, "set_model", _with_automatic),
    arguments=("model",),
    without="`fit` updates neither masks nor codebooks: call `keras_mot.update_step(model)` after each training step",
    check=callback_list_problem,
)
