"""Loading `.keras` files, with errors that say what is wrong with them."""

from keras_mot.cli._errors import UsageError
from keras_mot.cli._files import existing_file


def load_model(path, compile=False):
    """The Keras model in the file at `path`; compiled as it was saved, if asked for and possible."""
    path = existing_file(path, "a `.keras` file")
    if path.suffix != ".keras":
        raise UsageError(f"'{path}' is not a `.keras` file: save the model with `model.save('model.keras')`.")
    import keras_mot.sparsity  # noqa: F401  (registers what a model in the middle of pruning holds)
    from keras_mot._model_files import load_model_file

    if compile:
        try:
            return load_model_file(path, compile=True)
        except ValueError:  # its loss may be the user's own; then it is chosen anew
            return load_model(path)
    try:
        return load_model_file(path)
    except ValueError as error:
        raise UsageError(str(error)) from error
