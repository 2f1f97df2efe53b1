"""Callbacks under TFMOT's names: `UpdatePruningStep` and `PruningSummaries`."""

import os

import keras

from keras_mot.layers import UpdateTransforms
from keras_mot.layers._updates import has_scheduled_transforms
from keras_mot.sparsity.report import pruning_report


class UpdatePruningStep(UpdateTransforms):
    """Updates the pruning masks between the steps of `fit`, and adds `sparsity` to the logs.

    `fit` adds it by itself, before all other callbacks; passing it does no harm. In a custom loop,
    `update_pruning_step(model)` is simpler.

    Raises:
        ValueError: when training begins, if the model has no pruned layers.
    """

    def on_train_begin(self, logs=None):
        """Makes the update that is due before the first step."""
        if not has_scheduled_transforms(self._model):
            raise ValueError(
                f"`UpdatePruningStep` was given to a model without pruned layers, '{self._model.name}': train the "
                "model that `prune_low_magnitude` returned."
            )
        super().on_train_begin(logs)


class PruningSummaries(keras.callbacks.Callback):
    """Writes the sparsity of each pruned weight, and the epoch's logs, for TensorBoard.

    Args:
        log_dir: directory of the event files; they are written to `log_dir/metrics`.
        update_freq: `"epoch"`, or a number of batches after which the sparsities are also written.

    Raises:
        ValueError: if `log_dir` is not a non-empty path, or `update_freq` is something else.
        ImportError: if the package `tensorboard` is missing.

    Example:

    ```python
    pruned.fit(x, y, callbacks=[PruningSummaries("logs")])
    ```
    """

    def __init__(self, log_dir, update_freq="epoch"):
        super().__init__()
        if not isinstance(log_dir, str | os.PathLike) or not os.fspath(log_dir):
            raise ValueError(f"`log_dir` should be a non-empty path; received {log_dir!r}.")
        if update_freq != "epoch" and not (isinstance(update_freq, int) and update_freq > 0):
            raise ValueError(
                f"`update_freq` should be 'epoch' or a positive number of batches; received {update_freq!r}."
            )
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise ImportError('`PruningSummaries` needs TensorBoard: pip install "keras-mot[tensorboard]".') from error
        self.log_dir = os.path.join(os.fspath(log_dir), "metrics")
        self.update_freq = update_freq
        self._writer = None
        self._batches = 0

    def on_train_begin(self, logs=None):
        """Opens the event file."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(self.log_dir)

    def on_train_batch_end(self, batch, logs=None):
        """Counts batches, and writes if `update_freq` says so."""
        self._batches += 1
        if self.update_freq != "epoch" and self._batches % self.update_freq == 0:
            self._write(self._sparsities(), self._batches)

    def on_epoch_end(self, epoch, logs=None):
        """Writes the logs of the epoch and the sparsities."""
        self._write({f"epoch_{name}": value for name, value in (logs or {}).items()} | self._sparsities(), epoch)

    def on_train_end(self, logs=None):
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _sparsities(self):
        return {f"sparsity/{row.path}": row.sparsity for row in pruning_report(self.model).pruned}

    def _write(self, values, step):
        import time

        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))
        self._writer.flush()
