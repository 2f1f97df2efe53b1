"""The folder of a run: a checkpoint and a file for each finished stage, and what was measured."""

import contextlib
import hashlib
import json
import pathlib

import keras

from keras_mot._files import obstacle_to_writing, replacing
from keras_mot._version import __version__
from keras_mot.layers._attach import numpy_value
from keras_mot.recipes.result import StageResult

_LOG = "run.json"


class RunFolder:
    """The folder of a run.

    Args:
        path: of the folder, which need not exist.
        identity: dictionary of texts: what a run must have in common with one that it goes on with.
        resume: whether to go on with the finished stages in the folder.

    Attributes:
        stages: list of the `StageResult`s of finished stages.

    Raises:
        ValueError: if the folder cannot be written to, or holds a run of something else.
    """

    def __init__(self, path, identity, resume):
        self.path = pathlib.Path(path)
        self._identity, self.stages = identity, []
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"The folder '{path}' cannot be made: {error.strerror or error}.") from error
        obstacle = obstacle_to_writing(self.path)
        if obstacle:
            raise ValueError(f"The folder '{path}' cannot be written to: {obstacle}.")
        if resume and (self.path / _LOG).exists():
            self._read()

    def _read(self):
        try:
            log = json.loads((self.path / _LOG).read_text(encoding="utf-8"))
            stages = [_from_dict(stage, self.path) for stage in log["stages"]]
            identity = log["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"'{self.path / _LOG}' is damaged ({error}): {_OTHERWISE}") from error
        different = [name for name, value in self._identity.items() if identity.get(name) != value]
        if different:
            raise ValueError(f"'{self.path}' holds a run with another {' and another '.join(different)}: {_OTHERWISE}")
        for stage in stages:
            if not (stage.artifact.exists() and stage.model_path.exists()):
                break  # this one, and what followed from it, is made again
            self.stages.append(stage)

    def add(self, name, model, artifact):
        """Keeps the model of a stage.

        Args:
            name: of the stage.
            model: with its transforms.
            artifact: function that writes the stage's file to a path, and returns what describes it.

        Returns:
            The paths of the checkpoint and of the file, and what `artifact` returned.
        """
        stem = f"{len(self.stages):02d}-{name}"
        checkpoint, file = self.path / f"{stem}.keras", self.path / f"{stem}.tflite"
        with self._explaining(name):
            with replacing(checkpoint) as temporary:
                model.save(temporary)
            with replacing(file) as temporary:
                described = artifact(temporary)
        return checkpoint, file, described

    def finish(self, stage):
        """Notes a finished stage."""
        stages = [*self.stages, stage]
        log = {
            "keras_mot": __version__,
            "identity": self._identity,
            "stages": [finished.to_dict() for finished in stages],
        }
        with self._explaining(stage.name), replacing(self.path / _LOG) as temporary:
            temporary.write_text(json.dumps(log, indent=2), encoding="utf-8")
        self.stages = stages

    @contextlib.contextmanager
    def _explaining(self, name):
        """Where a file that cannot be written, on a full disk for example, is an error that says what is left."""
        try:
            yield
        except OSError as error:
            raise OSError(
                f"The files of stage '{name}' could not be written to '{self.path}': {error}. Finished stages "
                f"({', '.join(stage.name for stage in self.stages) or 'none yet'}) lie there, and a run with the same "
                "arguments goes on after them."
            ) from error

    def last_model(self):
        """The model of the last finished stage, with its transforms."""
        path = self.stages[-1].model_path
        try:
            return keras.models.load_model(path, compile=False)
        except Exception as error:
            raise ValueError(
                f"The checkpoint '{path}' cannot be loaded: {error} Custom layers must be registered with Keras; or "
                "pass `resume=False` to begin anew."
            ) from error


_OTHERWISE = "name another folder, or pass `resume=False` (on the command line `--restart`) to begin anew."


def _from_dict(values, folder):
    return StageResult(
        **{**values, "artifact": folder / values["artifact"], "model_path": folder / values["model_path"]}
    )


def fingerprint(model):
    """A short text that differs between models and their weights."""
    digest = hashlib.sha256()
    for variable in model.weights:  # the states of random generators are drawn anew when a model is loaded
        digest.update(f"{tuple(variable.shape)} {variable.dtype}".encode())
        digest.update(numpy_value(variable).tobytes())
    for layer in model._flatten_layers():
        digest.update(type(layer).__name__.encode())
        if not isinstance(layer, keras.Model):
            digest.update(_settings(layer).encode())
    return digest.hexdigest()[:16]


def _settings(layer):
    """A layer's configuration as text, without its name; empty where it has none that can be written."""
    try:
        config = layer.get_config()
        return json.dumps({key: value for key, value in config.items() if key != "name"}, sort_keys=True)
    except (TypeError, ValueError, NotImplementedError):
        return ""
