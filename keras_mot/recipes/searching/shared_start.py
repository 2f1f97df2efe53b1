"""The float model of a search, exported and measured once: all trials begin with it."""

import contextlib
import dataclasses
import os
import pathlib
import shutil

from keras_mot.recipes import _run_log
from keras_mot.recipes._run_log import RunLog
from keras_mot.recipes.recipe import Recipe

_FIRST = "float"


def keep(folder: pathlib.Path, kept: pathlib.Path) -> None:
    """Keeps the first stage of a run of `compress`.

    Args:
        folder: of the run.
        kept: a folder, made for it; nothing is done if it is there.
    """
    if kept.exists():
        return
    log = _run_log.read(folder)
    files = _files(log)
    unfinished = kept.with_name(f"{kept.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for file in files:
        _link(folder / file, unfinished / file)
    digests = {file: log.digests[file] for file in files}
    RunLog(log.identity, log.names[:1], log.stages[:1], digests).write(unfinished)
    unfinished.rename(kept)


def begin_with(kept: pathlib.Path, folder: pathlib.Path, recipe: Recipe) -> None:
    """Makes a folder look as if a run of a recipe had finished the first stage in it.

    Where nothing was kept, or it cannot be read, the run measures the float model itself. It does so, too, where the
    files are not as they were written.

    Args:
        kept: the folder that `keep` made.
        folder: of the run, without one as yet.
        recipe: a `Recipe`.
    """
    with contextlib.suppress(OSError, ValueError):
        log = _run_log.read(kept)
        for file in _files(log):
            _link(kept / file, folder / file)
        names = (_FIRST, *recipe.stage_names)
        dataclasses.replace(log, identity={**log.identity, "recipe": recipe.to_yaml()}, names=names).write(folder)


def _files(log):
    """The names of the first stage's files: one alone, where there is none in floats for the runtime."""
    names = [path.name for stage in log.stages[:1] for path in (stage.model_path, stage.artifact)]
    return list(dict.fromkeys(names))


def _link(source, target):
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
