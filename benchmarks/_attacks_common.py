"""What the groups of attacks share: how an attack is judged, and the tiny model that they are made from.

A group is a function of (scratch folder, seed) that yields (case, problem): `None` if the library held.
"""

import contextlib
import io
import json
import resource
import time
import zipfile

_LONGEST_MESSAGE, _LONGEST_SECONDS, _MOST_MEMORY = 5000, 30.0, 2**30


def tiny_model():
    """A small convolutional network with every kind of weight that the attacks change."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(4, activation="softmax"),
        ],
        name="tiny",
    )


def called(function, refusal=True, seconds=_LONGEST_SECONDS):
    """The problem with a call of the library that should be refused, or may be; `None` if there is none.

    Args:
        function: The call.
        refusal: Whether it must be refused.
        seconds: What it may take.
    """
    started, before = time.perf_counter(), _peak()
    try:
        function()
        problem = "accepted" if refusal else None
    except Exception as error:
        problem = problem_with(error)
    return problem or _cost(started, before, seconds)


def problem_with(error):
    """What is wrong with an exception as the answer to a bad argument or file."""
    expected = isinstance(error, ValueError | TypeError | OSError | ImportError)
    if not expected or isinstance(error, UnicodeError | json.JSONDecodeError):
        return f"raw {type(error).__name__}: {str(error)[:200]}"
    if not str(error).strip():
        return f"{type(error).__name__} without a message"
    if len(str(error)) > _LONGEST_MESSAGE:
        return f"a message of {len(str(error)):,} characters"
    return None


def commanded(arguments, refusal=True):
    """The problem with a run of the command line on a file that it should refuse, or may."""
    from keras_mot.cli import main

    started, before = time.perf_counter(), _peak()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ending:
            code = ending.code
        except Exception as error:
            return f"raw {type(error).__name__}: {str(error)[:200]}"
    message = err.getvalue()
    if code not in (0, 1, 2):
        return f"exit code {code}"
    if code == 0 and refusal:
        return "accepted"
    if code == 1:
        return f"taken for a failure of the work: {message[-300:]}"
    if "Traceback" in message:
        return "a traceback"
    if len(message) > _LONGEST_MESSAGE:
        return f"a message of {len(message):,} characters"
    if code and "error:" not in message:
        return "no message"
    return _cost(started, before)


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _cost(started, before, longest=_LONGEST_SECONDS):
    seconds, memory = time.perf_counter() - started, _peak() - before
    if seconds > longest:
        return f"it took {seconds:.0f} seconds"
    if memory > _MOST_MEMORY:
        return f"it took {memory / 2**20:,.0f} MiB"
    return None


def rewritten(path, target, changes=None, drop=(), compression=zipfile.ZIP_STORED):
    """Copies a zip archive with some members changed, added or dropped."""
    changes = dict(changes or {})
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", compression) as copy:
        for name in source.namelist():
            if name not in drop:
                copy.writestr(name, changes.pop(name, None) or source.read(name))
        for name, content in changes.items():
            copy.writestr(name, content)
    return target
