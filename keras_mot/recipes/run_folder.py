"""The folder of a run: a checkpoint and a file for each finished stage, and what was measured."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator

import keras

from keras_mot._arrays import numpy_value
from keras_mot._files import is_left_over, replacing, writable_folder, write_text
from keras_mot._formats import KERAS, suffixes
from keras_mot._keras import flatten_layers
from keras_mot._lock import locked
from keras_mot._warnings import warn
from keras_mot.export.litert.ethos_u.compiling import ENDING as COMPILED
from keras_mot.recipes import _run_log
from keras_mot.recipes._resumable import reason
from keras_mot.recipes._run_log import RunLog, digest, files_of
from keras_mot.recipes._stage_files import NoFileError
from keras_mot.recipes.stages import STAGES

REPORTS = ("report.json", "report.md")
_OTHERWISE = "name another folder, or pass `resume=False` (on the command line `--restart`) to begin anew."


@contextlib.contextmanager
def run_folder(path, identity: dict[str, str], names: tuple[str, ...], resume: bool) -> Iterator["RunFolder"]:
    """The folder of a run, which no other run can use meanwhile.

    Args:
        path: of the folder, which need not exist.
        identity: dictionary of texts: what a run must have in common with one that it goes on with.
        names: of the stages, "float" first.
        resume: whether to go on with the finished stages in the folder.

    Raises:
        ValueError: if the folder cannot be written to, is in use, or holds something else.
    """
    path = writable_folder(path, parents=True)
    with locked(path):
        _check_names(path, names)
        for file in path.iterdir():
            if is_left_over(file.name) and file.is_file():
                file.unlink()
        log = RunLog(identity, tuple(names), (), {})
        if not resume:
            _remove_run(path)
        elif (path / _run_log.NAME).exists():
            log = _read(path, log)
        yield RunFolder(path, log)


class RunFolder:
    """The folder of a run.

    Args:
        path: of the folder.
        log: the `RunLog` of what is finished.

    Attributes:
        stages: tuple of the `StageResult`s of finished stages, up to the first whose files are missing or damaged.
    """

    def __init__(self, path, log):
        self.path, self._log = path, log
        self._intact = [_problem(stage, log.digests) for stage in log.stages]
        self.stages = self._finished(0)
        found = next((problem for problem in self._intact if problem), None)
        if found:
            warn(
                f"{found} in '{self.path}': the stage is done again, and so are those after it, unless it comes out as "
                "it was."
            )

    def _finished(self, start):
        """The stages before the first, from `start` on, that is not intact."""
        end = start
        while end < len(self._intact) and not self._intact[end]:
            end += 1
        return self._log.stages[:end]

    def add(self, name, model, artifact):
        """Keeps the model of a stage.

        Args:
            name: of the stage.
            model: with its transforms.
            artifact: function that writes the stage's file to a path, and returns what describes it.

        Returns:
            The paths of the checkpoint and of the file, and what `artifact` returned; the checkpoint twice, and None,
            where there can be no file.
        """
        checkpoint, file = (self.path / each for each in files_of(len(self.stages), name))
        with self._explaining(name):
            with replacing(checkpoint, owned=True) as temporary:
                model.save(temporary)
            try:
                with replacing(file, owned=True) as temporary:
                    described = artifact(temporary)
            except NoFileError:
                return checkpoint, checkpoint, None
        return checkpoint, file, described

    def finish(self, stage):
        """Notes a finished stage. Those that followed it in an earlier run stay, if its file came out as it was."""
        with self._explaining(stage.name):
            old, number = self._log, len(self.stages)
            digests = {path.name: digest(path) for path in (stage.model_path, stage.artifact)}
            later = ()
            if old.digests.get(stage.artifact.name) == digests[stage.artifact.name]:
                later = old.stages[number + 1 :]
            log = dataclasses.replace(old, stages=(*self.stages, stage, *later), digests={**old.digests, **digests})
            log.write(self.path)
            self._log = log
            self._intact = [None] * (number + 1) + self._intact[number + 1 :][: len(later)]
        self.stages = self._finished(number)

    def report(self, result):
        """Writes what was measured, for programs and for people."""
        texts = (json.dumps(result.to_dict(), indent=2), result.to_markdown())
        with self._explaining("report"):
            for name, text in zip(REPORTS, texts, strict=True):
                write_text(self.path / name, text, owned=True)

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
            changed = _problem(self.stages[-1], self._log.digests)
            if changed:
                raise ValueError(f"{changed} in '{self.path}': call it again, and the stage is done anew.") from error
            raise ValueError(
                f"The checkpoint '{path}' cannot be loaded: {reason(error)} Layers of your own must be registered with "
                "Keras; or pass `resume=False` to begin anew."
            ) from error


def _read(path, new):
    """The log in a folder, if it is of the run that `new` describes."""
    try:
        log = _run_log.read(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"'{path / _run_log.NAME}' is damaged, or of no run: {error}. Nothing was changed: {_OTHERWISE}"
        ) from error
    different = [name for name, value in new.identity.items() if log.identity.get(name) != value]
    if different:
        raise ValueError(f"'{path}' holds a run with another {' and another '.join(different)}: {_OTHERWISE}")
    if log.names != new.names:
        raise ValueError(f"'{path}' holds a run of other stages: {_OTHERWISE}")
    return log


def _problem(stage, digests):
    """Which file of a finished stage is not as it was written, or None."""
    for path in (stage.model_path, stage.artifact):
        if not path.is_file():
            return f"'{path.name}' is missing"
        try:
            if digest(path) != digests[path.name]:
                return f"'{path.name}' is not as it was written"
        except OSError as error:
            return f"'{path.name}' cannot be read ({error.strerror or error})"
    return None


def _check_names(path, names):
    """Refuses a folder in which something that is no file, or not of a run, has a name that the run needs."""
    stages = [file for number, name in enumerate(names) for file in files_of(number, name)]
    for name in (*stages, _run_log.NAME, *REPORTS):
        file = path / name
        if os.path.lexists(file) and not file.is_symlink() and not file.is_file():
            raise ValueError(f"'{file}' is no file; a run writes one of that name: name another folder.")
    if not os.path.lexists(path / _run_log.NAME):
        for name in REPORTS:
            if os.path.lexists(path / name):
                raise ValueError(
                    f"The folder '{path}' holds no run, but '{name}', which a run would replace: name another folder."
                )


def _remove_run(path):
    """Removes the files of the run in a folder, and nothing else. A log that cannot be read is kept aside."""
    log = path / _run_log.NAME
    if not os.path.lexists(log):
        return
    try:
        old = _run_log.read(path)
        owned = {file for number, name in enumerate(old.names) for file in files_of(number, name)}.__contains__
    except (OSError, ValueError):
        old, owned = None, is_file_of_a_stage
    for file in path.iterdir():
        made_from = f"{file.stem.removesuffix(COMPILED)}{file.suffix}"
        if (file.name in REPORTS or owned(file.name) or owned(made_from)) and (file.is_symlink() or file.is_file()):
            file.unlink()
    if old is None:
        os.replace(log, path / f"{log.name}.old")
    else:
        log.unlink()


def is_file_of_a_stage(file: str) -> bool:
    """Whether a run may have given a file this name."""
    kinds = "|".join(map(re.escape, ("float", *STAGES)))
    endings = "|".join(map(re.escape, (KERAS, *suffixes())))
    return re.fullmatch(rf"\d\d-({kinds})(_\d+)?({endings})", file) is not None


def fingerprint(model):
    """A short text that differs between models and their weights."""
    digest = hashlib.sha256()
    for variable in model.weights:  # the states of random generators are drawn anew when a model is loaded
        digest.update(f"{tuple(variable.shape)} {variable.dtype}".encode())
        digest.update(numpy_value(variable).tobytes())
    for layer in flatten_layers(model):
        digest.update(type(layer).__name__.encode())
        if not isinstance(layer, keras.Model):
            digest.update(_settings(layer).encode())
    return digest.hexdigest()[:16]


def _settings(layer):
    """A layer's configuration as text, without names; empty where it has none that can be written."""
    try:
        return json.dumps(_without_names(layer.get_config()), sort_keys=True)
    except (TypeError, ValueError, NotImplementedError):
        return ""


def _without_names(config):
    """A configuration without the names of layers, which Keras numbers anew in every process."""
    if isinstance(config, dict):
        return {key: _without_names(value) for key, value in config.items() if key != "name"}
    return [_without_names(item) for item in config] if isinstance(config, list | tuple) else config
