"""Whether the checkpoints of a run can be loaded again, asked before anything is trained."""

import pathlib
import tempfile
import warnings

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._warnings import warn


def check_resumable(*models: keras.Model) -> None:
    """Warns if what one of the models would be saved as cannot be loaded, or comes back with other weights.

    Raises:
        ValueError: if a model cannot be saved at all.
    """
    for model in models:
        problem = _problem(model)
        if problem is None:
            continue
        warn(
            f"This run cannot be resumed, and its checkpoints cannot be loaded: a saved copy of '{model.name}' "
            f"{problem} Register layers and functions of your own with `keras.saving.register_keras_serializable()`, "
            "and write a `Lambda` layer as a layer of your own (or call "
            "`keras.config.enable_unsafe_deserialization()`, if you trust where the function comes from). The run goes "
            "on, but one that is stopped has to begin anew."
        )
        return


def _problem(model):
    with tempfile.TemporaryDirectory(prefix="keras_mot_") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = pathlib.Path(folder) / "model.keras"
        try:
            model.save(path)
        except OSError:  # of the folder for temporary files; that of the run may well have room
            return None
        except Exception as error:
            raise ValueError(
                f"'{model.name}' cannot be saved, as it is after each stage: {reason(error)} Give its layers "
                "`get_config`, and register them with Keras."
            ) from error
        try:
            loaded = keras.models.load_model(path, compile=False)
        except Exception as error:
            return f"cannot be loaded: {reason(error)}"
    old, new = model.weights, loaded.weights
    if len(old) != len(new):
        return f"has {len(new)} weights, not {len(old)}."
    for before, after in zip(old, new, strict=True):
        if not np.array_equal(_bits(before), _bits(after)):
            return f"has other values in '{before.path}'."
    return None


def _bits(variable):
    """A weight's bytes: values that are no number are equal to themselves."""
    return np.frombuffer(np.ascontiguousarray(numpy_value(variable)).tobytes(), "uint8")


def reason(error: Exception) -> str:
    """What Keras says of a failure, without the configurations of models that it was met in."""
    innermost = str(error).rsplit("Exception encountered:", 1)[-1]
    return " ".join(innermost.split())[:400] or type(error).__name__
