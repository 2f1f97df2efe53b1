"""Training in a command: with progress, reproducible, and never on to a result that is not a number."""

from keras_mot.cli._errors import FailedError


def trained(model, settings, data, objective, title):
    """Trains a model as the stages of recipes do; raises a `FailedError` if training diverged.

    Args:
        model: to train in place.
        settings: a `FineTune`.
        data: a `TrainingData`.
        objective: an `Objective`.
        title: what the progress is called.

    Returns:
        The logs of the last epoch.
    """
    from keras_mot._progress import TrainingProgress
    from keras_mot.recipes.fine_tuning import train

    progress = TrainingProgress(title)
    try:
        return train(model, settings, data, objective, callbacks=[progress])
    except FloatingPointError as error:
        raise FailedError(str(error).replace("Lower the learning rate", "Lower `--learning-rate`")) from error
    finally:
        progress.close()
