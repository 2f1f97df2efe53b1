"""The child process of exports from another backend: `python -m keras_mot.export.litert.engines.worker SECONDS`.

Each line that it is sent is the path of a folder: it reads `model.keras` and `task.json` there, writes `dense.tflite`,
`sparse.tflite` and `answer.json`, and answers `DONE`. It ends with its input, after so many seconds without work, and
after work that took 2 GB of memory.
"""

import importlib
import json
import os
import pathlib
import re
import sys
import threading

DONE = "done"
"""The line that says that a task was done."""
_LARGE = 2 << 30


def main(idle):
    """Does what it is asked for, until its input ends or `idle` seconds have passed without work."""
    # What is printed while models are loaded and converted, by whatever code, is no answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdin.reconfigure(encoding="utf-8")  # as it is written, whatever the system's own is
    while True:
        waiting = threading.Timer(float(idle), os._exit, (0,))
        waiting.daemon = True
        waiting.start()
        line = sys.stdin.readline()
        waiting.cancel()
        if not line:
            return
        _do(pathlib.Path(line.removesuffix("\n")))
        answers.write(f"{DONE}\n")
        answers.flush()
        if _peak() > _LARGE:  # what large models have taken is not all given back
            return


def _peak():
    """The most bytes that this process has held in memory; 0 where the system does not tell."""
    try:  # `getrusage` of Linux counts what the process has held that started this one
        status = pathlib.Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024
    except (OSError, TypeError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _do(directory):
    """Does the task that a folder describes, and leaves its result there."""
    task = json.loads((directory / "task.json").read_text())
    try:
        conversion = _convert(directory, task)
        for name in ("dense", "sparse"):
            content = getattr(conversion, name)
            if content is not None:
                (directory / f"{name}.tflite").write_bytes(content)
        answer = {
            "sparse_failure": conversion.sparse_failure,
            "batch_size": conversion.batch_size,
            "output_names": conversion.output_names,
            "open_failure": conversion.open_failure,
        }
    except _UserError as error:
        answer = {"error": str(error), "unsupported": error.unsupported}
    (directory / "answer.json").write_text(json.dumps(answer))
    _forget()


def _forget():
    """Leaves nothing of a model to the next one."""
    import gc

    import keras

    keras.utils.clear_session()
    gc.collect()


class _UserError(Exception):
    """An error to be raised again, in the parent process."""

    def __init__(self, message, unsupported=False):
        super().__init__(message)
        self.unsupported = unsupported


def _convert(directory, task):
    import keras

    from keras_mot.export.litert.engines.conversion import ConversionRequest, UnsupportedOperationError
    from keras_mot.export.litert.engines.in_process import convert_in_process
    from keras_mot.export.litert.signature import InputTensor, Signature

    keras.config.set_floatx(task["floatx"])
    keras.config.set_image_data_format(task["image_data_format"])
    signature = Signature(
        tuple(InputTensor(name, tuple(shape), dtype) for name, shape, dtype in task["inputs"]),
        tuple(task["arguments"]),
    )
    request = ConversionRequest(**task["request"])
    model = _load(directory / "model.keras", task["modules"])
    try:
        return convert_in_process(model, signature, request)
    except UnsupportedOperationError as error:
        raise _UserError(str(error), unsupported=True) from error
    except ValueError as error:
        raise _UserError(str(error)) from error
    except Exception as error:
        raise _UserError(
            f"The model '{model.name}' could not be converted with the TensorFlow backend "
            f"({type(error).__name__}): {error} A custom layer must compute with `keras.ops` alone to work "
            f"on every backend."
        ) from error


def _load(path, modules):
    import keras

    try:
        for module in modules:
            importlib.import_module(module)
        # The parent process wrote this file a moment ago, so that its lambdas are the user's own.
        return keras.models.load_model(path, compile=False, safe_mode=False)
    except Exception as error:
        raise _UserError(
            f"The model could not be loaded in the process that converts it with TensorFlow "
            f"({type(error).__name__}): {error} Its custom classes and functions must be registered with "
            f"`keras.saving.register_keras_serializable` in a module that can be imported, or run the export "
            f"with KERAS_BACKEND=tensorflow."
        ) from error


if __name__ == "__main__":
    main(sys.argv[1])
