"""The choice of a backend where nobody has made one, before Keras is imported.

Keras takes TensorFlow by default, and fails if it is missing, also where another backend is installed.
"""

import json
import os
import pathlib
import sys

from keras_mot._packages import how_to_install, is_installed

BACKENDS = ("tensorflow", "jax", "torch")


def choose_backend():
    """Sets `KERAS_BACKEND` to the one backend that is installed, if Keras would take one that is not.

    Does nothing if Keras has been imported already, or will find the backend that it is going to take.

    Raises:
        ImportError: no backend is installed, the one that was asked for is not, or there are two to choose from.
    """
    if "keras" in sys.modules:
        return
    asked = os.environ.get("KERAS_BACKEND")
    wanted, _ = configured_backend()
    if wanted not in BACKENDS or is_installed(wanted):
        return
    others = [backend for backend in BACKENDS if is_installed(backend)]
    if not others:
        raise ImportError(
            "Keras needs a backend, and none is installed. Install TensorFlow, JAX or PyTorch: "
            f"{how_to_install('tensorflow')}, pip install jax, or pip install torch."
        )
    if asked:
        raise ImportError(
            f"KERAS_BACKEND is '{asked}', which is not installed. Set it to what is installed ({' or '.join(others)}), "
            f"or install it: {how_to_install(asked)}."
        )
    if len(others) > 1:
        raise ImportError(
            f"Keras would take the backend '{wanted}', which is not installed. Set the environment variable "
            f"KERAS_BACKEND to one that is: {' or '.join(others)}."
        )
    os.environ["KERAS_BACKEND"] = others[0]


def configured_backend() -> tuple[str, str]:
    """The backend that Keras is set to take, whether it is installed or not, and what says so."""
    asked = os.environ.get("KERAS_BACKEND")
    if asked:
        return asked, "KERAS_BACKEND says so"
    path = pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "keras.json"
    try:
        return json.loads(path.read_text())["backend"], f"{path} says so"
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow", "it is Keras's default"
