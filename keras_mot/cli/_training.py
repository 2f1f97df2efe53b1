"""Training in a command: with progress, reproducible, and never on to a result that is not a number."""

import math

from keras_mot.cli._errors import FailedError


def fit(model, x, y, title, **arguments):
    """Runs `fit`; raises a `FailedError` if training diverged.

    Returns:
        The logs of the last epoch.
    """
    from keras_mot._progress import TrainingProgress

    progress = TrainingProgress(title)
    try:
        history = model.fit(x, y, verbose=0, callbacks=[progress], **arguments).history
    finally:
        progress.close()
    logs = {name: float(values[-1]) for name, values in history.items()}
    if not math.isfinite(logs["loss"]):
        raise FailedError(f"Training diverged: the loss is {logs['loss']}. Lower `--learning-rate`.")
    return logs
