"""Progress, on the standard error stream."""

import contextlib
import sys

import keras


@contextlib.contextmanager
def progress_bar(show=True):
    """A progress bar on the standard error stream, drawn only where it can be: on a terminal, in a notebook.

    Args:
        show: `False` for none; `None` is as `True`.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    show = show is not False and (console.is_interactive or console.is_jupyter)
    bar = Progress(console=console, transient=True, disable=not show)
    if not show:  # neither started nor stopped: elsewhere than on a terminal, stopping prints an empty line
        yield bar
        return
    with bar:
        yield bar


class TrainingProgress(keras.callbacks.Callback):
    """Shows epochs and batches, and the logs of each finished epoch."""

    def __init__(self, title):
        super().__init__()
        self._title = title

    def on_train_begin(self, logs=None):
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(console=Console(file=sys.stderr), transient=True)
        total = self.params["steps"] and self.params["epochs"] * self.params["steps"]
        self._task = self._bar.add_task(self._title, total=total)
        if self._bar.console.is_terminal:
            self._bar.start()

    def on_train_batch_end(self, batch, logs=None):
        self._bar.advance(self._task)

    def on_epoch_end(self, epoch, logs=None):
        values = "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        self._bar.console.print(
            f"{self._title}: epoch {epoch + 1}/{self.params['epochs']}  {values}", highlight=False, soft_wrap=True
        )

    def close(self):
        """Takes the bar off the terminal, also after an error."""
        bar = getattr(self, "_bar", None)
        if bar is not None and bar.console.is_terminal:
            bar.stop()


def say(message: str) -> None:
    """Prints a line of progress."""
    print(message, file=sys.stderr, flush=True)
