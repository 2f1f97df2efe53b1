"""Numbers of the transformed weights for TensorBoard: the base of the techniques' summaries callbacks."""

import abc
import inspect
import os
import time

import keras

from keras_mot._messages import describe
from keras_mot._numbers import is_whole
from keras_mot._warnings import warn


class TransformSummaries(keras.callbacks.Callback, abc.ABC):
    """Writes what `values` returns, and the epoch's logs, for TensorBoard.

    Args:
        log_dir: directory of the event files; they are written to `log_dir/metrics`.
        update_freq: `"epoch"`, or a number of batches after which the values are also written, `"batch"` for each.
        **others: other arguments of `keras.callbacks.TensorBoard`, which have no effect, and are warned of.

    Raises:
        TypeError: if `TensorBoard` has no such argument.
        ValueError: if `log_dir` is not a non-empty path, or `update_freq` is something else.
        ImportError: if the package `tensorboard` is missing.
    """

    def __init__(self, log_dir="logs", update_freq="epoch", **others):
        super().__init__()
        self._check_others(others)
        update_freq = 1 if update_freq == "batch" else update_freq
        if not isinstance(log_dir, str | os.PathLike) or not os.fspath(log_dir):
            raise ValueError(f"`log_dir` should be a non-empty path; received {describe(log_dir)}.")
        if os.path.exists(log_dir) and not os.path.isdir(log_dir):
            raise ValueError(f"`log_dir` should be a directory; '{log_dir}' is none.")
        if update_freq != "epoch" and not (is_whole(update_freq) and update_freq > 0):
            raise ValueError(
                "`update_freq` should be 'epoch', 'batch' or a positive number of batches; received "
                f"{describe(update_freq)}."
            )
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            name = type(self).__name__
            raise ImportError(f"`{name}` needs TensorBoard: pip install tensorboard") from error
        self.log_dir = os.path.join(os.fspath(log_dir), "metrics")
        self.update_freq = update_freq
        self._writer = None
        self._batches = 0
        self._epochs = 0  # of a loop of the user's own that says where they begin

    def _check_others(self, others):
        known = inspect.signature(keras.callbacks.TensorBoard.__init__).parameters
        unknown = [name for name in others if name not in known]
        if unknown:
            raise TypeError(f"`{type(self).__name__}` has no argument {unknown}.")
        if others:
            warn(
                f"`{type(self).__name__}` writes what the technique does, no more: {sorted(others)} have no effect. "
                "Pass a `keras.callbacks.TensorBoard` beside it for what that writes."
            )

    @abc.abstractmethod
    def values(self):
        """Dictionary from tags to numbers: what is written of `self.model`."""

    def on_train_begin(self, logs=None):
        """Opens the event file."""
        self._open()

    def on_epoch_begin(self, epoch, logs=None):
        """Writes the values, in a loop of the user's own that calls nothing else."""
        if self._writer is None or self._epochs:
            self._open()
            self._write(self.values(), self._epochs)
            self._epochs += 1

    def _open(self):
        if self._writer is None:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter

            self._writer = EventFileWriter(self.log_dir)

    def on_train_batch_end(self, batch, logs=None):
        """Counts batches, and writes if `update_freq` says so."""
        self._batches += 1
        if self.update_freq != "epoch" and self._batches % self.update_freq == 0:
            self._write(self.values(), self._batches)

    def on_epoch_end(self, epoch, logs=None):
        """Writes the logs of the epoch and the values."""
        self._write({f"epoch_{name}": value for name, value in (logs or {}).items()} | self.values(), epoch)

    def on_train_end(self, logs=None):
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, values, step):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))
        self._writer.flush()
