"""What trials of a search have in common is done once: the float file, and stages that an earlier trial has, too."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterable

from keras_mot.recipes import _run_log
from keras_mot.recipes._run_log import RunLog
from keras_mot.recipes.recipe import Recipe
from keras_mot.recipes.searching.worker import RECIPE

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
    files = _files(log.stages[:1])
    unfinished = kept.with_name(f"{kept.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for file in files:
        _link(folder / file, unfinished / file)
    digests = {file: log.digests[file] for file in files}
    RunLog(log.identity, log.names[:1], log.stages[:1], digests).write(unfinished)
    unfinished.rename(kept)


def begin_with(kept: pathlib.Path, folder: pathlib.Path, recipe: Recipe, others: Iterable[pathlib.Path] = ()) -> None:
    """Makes a folder look as if a run of a recipe had finished its first stages in it.

    Where nothing was kept, or it cannot be read, the run measures the float model itself. It does so, too, where the
    files are not as they were written.

    Args:
        kept: the folder that `keep` made.
        folder: of the run, without one as yet.
        recipe: a `Recipe`.
        others: folders of runs with the same model and data: of that whose recipe begins like this one, the stages that
            both have are taken over, but for the last one, whose file is timed.
    """
    found = [(_alike(recipe, other), other) for other in others]
    for count, source in [*sorted((each for each in found if each[0]), reverse=True), (0, kept)]:
        with contextlib.suppress(OSError, ValueError):
            log = _run_log.read(source)
            stages = log.stages[: 1 + count]
            files = _files(stages)
            if not all((source / file).is_file() for file in files):  # the search has removed them
                continue
            for file in files:
                _link(source / file, folder / file)
            identity = {**log.identity, "recipe": recipe.to_yaml()}
            digests = {file: log.digests[file] for file in files}
            RunLog(identity, (_FIRST, *recipe.stage_names), stages, digests).write(folder)
            return


def _alike(recipe, folder):
    """How many stages before its last a recipe has in common with that of a run, from the first on."""
    try:
        stages = Recipe.from_yaml(folder / RECIPE).stages
    except (OSError, ValueError, TypeError):
        return 0
    different = [ours != theirs for ours, theirs in zip(recipe.stages[:-1], stages, strict=False)]
    return different.index(True) if True in different else len(different)


def _files(stages):
    """The names of the files of stages: of one alone, where there is no file for the runtime."""
    return list(dict.fromkeys(path.name for stage in stages for path in (stage.model_path, stage.artifact)))


def _link(source, target):
    target.unlink(missing_ok=True)  # to be written through, it may be a file of another trial
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
