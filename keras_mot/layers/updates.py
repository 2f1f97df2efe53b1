"""Updating transforms between training steps, in `fit` and in custom loops.

The compiled step holds no schedule. `TransformSchedule` counts steps and calls the updaters of the transforms that
are due; `UpdateTransforms` does so from `fit`. Every `fit` of a model that has scheduled transforms runs
it, whether or not the user passes it: this module makes Keras's `CallbackList` add it, first in the list.
"""

import functools
import threading

import keras

from keras_mot._keras import finish_callbacks
from keras_mot._messages import describe
from keras_mot.layers._steps import EpochSteps
from keras_mot.layers.attaching import pending_transforms, transformed_weights
from keras_mot.layers.finding import check_layer


class TransformSchedule:
    """The scheduled transforms of a model, and the steps that they have seen.

    Args:
        model: a model (or layer) with transforms attached.
        before_update: called before variables are read or written, for trainers that hold them elsewhere.
    """

    def __init__(self, model, before_update=lambda: None):
        self._before_update = before_update
        groups = {}  # (updater, step) -> [(weight, transform)]
        for weight in transformed_weights(model):
            for transform in weight.transforms:
                if transform.updater is not None:
                    groups.setdefault((transform.updater, transform.step), []).append((weight, transform))
        # In the order of the stacks: a codebook is fitted to what the mask before it leaves.
        self._groups = dict(sorted(groups.items(), key=lambda group: max(map(_place_in_stack, group[1]))))
        # Steps already examined; -1 as long as the update before the first step has not been considered.
        self._examined = {
            key: key[1] if key[1] > 0 or any(transform.updated_at >= 0 for _, transform in members) else -1
            for key, members in self._groups.items()
        }
        self._steps = {key: key[1] for key in self._groups}
        self._logs = None

    def __bool__(self):
        return bool(self._groups)

    @property
    def logs(self):
        """What the updaters report for the logs of `fit`, as of the last update."""
        if self._logs is None:
            by_type = {}
            for (updater, _), members in self._groups.items():
                by_type.setdefault(type(updater), []).extend(weight for weight, _ in members)
            self._logs = {}
            for updater_type, weights in by_type.items():
                self._logs.update(updater_type.logs(weights))
        return self._logs

    @property
    def elapsed(self):
        """Steps counted by this object."""
        return max((self._steps[key] - key[1] for key in self._steps), default=0)

    @property
    def stale(self):
        """Whether something else, such as a restored checkpoint, has set the progress of a transform."""
        return any(
            transform.step != self._steps[key] for key, members in self._groups.items() for _, transform in members
        )

    def due_at(self, elapsed):
        """Whether `advance_to(elapsed)` would make an update; reads no variable."""
        return any(self._due(key, key[1] + elapsed) is not None for key in self._groups)

    def _due(self, key, step):
        return next((s for s in range(step, self._examined[key], -1) if key[0].due(s)), None)

    def advance_to(self, elapsed):
        """Sets the number of elapsed steps, and makes the updates that came due since the last call.

        Of several due updates only the last is made, as when several steps run in one execution. Where a
        transform has been updated, those after it in the stack follow, if their updater can.

        Returns:
            Whether any update was made.
        """
        changed = set()  # variables of the weights with an updated transform
        for key, members in self._groups.items():
            self._steps[key] = max(self._steps[key], key[1] + elapsed)
            step = self._steps[key]
            for _, transform in members:
                transform.step = step
            updater = key[0]
            due = self._due(key, step)
            self._examined[key] = step
            following = []
            if hasattr(updater, "follow"):
                following = [member for member in members if id(member[0].variable) in changed]
                self._update(updater.follow, following, step)
            others = [member for member in members if member not in following]
            if due is not None and not (others and self._keeps_loaded(updater, others, due)):
                self._update(updater.update, others, due)
                changed.update(id(weight.variable) for weight, _ in members)
        return bool(changed)

    def _keeps_loaded(self, updater, members, step):
        """Whether transforms that this model never updated have a state from elsewhere, which is to stay for now."""
        if not hasattr(updater, "keeps_loaded") or any(transform.updated_at >= 0 for _, transform in members):
            return False
        self._before_update()
        return updater.keeps_loaded([weight for weight, _ in members], step)

    def _update(self, update, members, step):
        if not members:
            return
        self._before_update()
        update([weight for weight, _ in members], step)
        self._logs = None
        for _, transform in members:
            transform.updated_at = step


def _place_in_stack(member):
    weight, transform = member
    return next(place for place, item in enumerate(weight.transforms) if item is transform)


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
        for layer, transform in pending_transforms(self._model):
            if hasattr(transform.updater, "initialize"):
                raise ValueError(
                    f"Layer '{layer.name}' is not built yet, and its {type(transform).__name__} starts from the values "
                    "of its weights: build the model before `fit`, with an `Input`, `model.build(input_shape)`, or "
                    "a call on data."
                )
        self._schedule = TransformSchedule(self._model, before_update=lambda: self.model)
        self._advance_to(0)

    def on_epoch_begin(self, epoch, logs=None):
        """Remembers the step at which the epoch begins."""
        self._require_begun()
        if self._schedule.stale:  # `BackupAndRestore` loads its checkpoint after this callback has begun
            self._start()
        self._epoch_start = self._schedule.elapsed
        self._steps = EpochSteps(self._model, (self.params or {}).get("steps"))

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
            self._schedule = TransformSchedule(self._model, before_update=lambda: self.model)
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


def _install():
    """Makes every `CallbackList` begin with the callbacks that its model needs."""
    plain_set_model = keras.callbacks.CallbackList.set_model
    if getattr(plain_set_model, "_keras_mot", False):
        return

    @functools.wraps(plain_set_model)
    def set_model(self, model):
        for applies, kind in reversed(_AUTOMATIC) if isinstance(model, keras.Model) else ():
            if applies(model):
                ours = [callback for callback in self.callbacks if isinstance(callback, kind)]
                others = [callback for callback in self.callbacks if not isinstance(callback, kind)]
                first = ours[0] if ours else kind()
                first._callback_list = self
                self.callbacks = [first, *others]
        plain_set_model(self, model)

    set_model._keras_mot = True
    keras.callbacks.CallbackList.set_model = set_model


_install()
