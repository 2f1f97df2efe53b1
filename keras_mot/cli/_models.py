"""Loading `.keras` files, with errors that say what is wrong with them."""

import zipfile

from keras_mot.cli._errors import UsageError
from keras_mot.cli._files import existing_file


def load_model(path, compile=False):
    """The Keras model in the file at `path`; compiled as it was saved, if asked for and possible."""
    path = existing_file(path, "a `.keras` file")
    if path.suffix != ".keras":
        raise UsageError(f"'{path}' is not a `.keras` file: save the model with `model.save('model.keras')`.")
    if not zipfile.is_zipfile(path):
        raise UsageError(f"'{path}' is damaged: a `.keras` file is a zip archive, and this is not one.")
    import keras

    import keras_mot.sparsity  # noqa: F401  (registers what a model in the middle of pruning holds)

    if compile:
        try:
            return keras.models.load_model(path)
        except Exception:  # its loss may be the user's own; then it is chosen anew
            return load_model(path)
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = "\n".join(lines[:6]) or type(error).__name__
        raise UsageError(
            f"'{path}' cannot be loaded: {reason}\nA model with layers or functions of your own is pruned and "
            "compressed from Python, where they are defined: see `keras_mot.sparsity.prune_low_magnitude` and "
            "`keras_mot.compress`."
        ) from error
