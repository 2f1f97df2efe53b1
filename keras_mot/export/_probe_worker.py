"""The child process of `_probe.py`: loads and runs files, and says of each how that went.

It reads a task from its input, and writes one line of JSON for each file: a list with the reason why the file cannot be
loaded, or an empty list. It imports nothing of this package, to start quickly.
"""

import json
import os
import sys

import numpy as np
from ai_edge_litert import interpreter as runtime

_BATCH = 2


def main() -> None:
    """Does the task."""
    task = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # what native code writes
        os.dup2(silence, descriptor)
    _limit_memory(task["memory"])
    for path in task["paths"]:
        answers.write(json.dumps(_try(path, task["kernels"])) + "\n")
        answers.flush()


def _limit_memory(available):
    """An allocation of more than there is fails, instead of the system ending some process."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    if available is not None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = taken + available
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))


def _try(path, kernels):
    options = {}
    if kernels == "reference":
        options["experimental_op_resolver_type"] = runtime.OpResolverType.BUILTIN_REF
        options["experimental_preserve_all_tensors"] = True
    try:
        with open(path, "rb") as file:
            interpreter = runtime.Interpreter(model_content=file.read(), **options)
        interpreter.allocate_tensors()
        inputs = interpreter.get_input_details()
        interpreter.get_tensor_details()
        for name in interpreter.get_signature_list():
            signature = interpreter.get_signature_runner(name)
            signature.get_input_details(), signature.get_output_details()
    except Exception as error:
        return [str(error)[:500]]
    try:
        _invoke(interpreter, inputs, 0)
        _resize(interpreter, inputs)
        _invoke(interpreter, interpreter.get_input_details(), 1)
    except MemoryError:
        return ["there is not enough memory"]
    except Exception:  # on other inputs, or for another batch, it may run; if not, the runner says so
        pass
    return []


def _resize(interpreter, inputs):
    """Another batch where the file takes any."""
    for details in inputs:
        shape, signature = details["shape"].tolist(), details["shape_signature"].tolist()
        if signature and signature[0] == -1:
            interpreter.resize_tensor_input(details["index"], [_BATCH, *shape[1:]], strict=True)
    interpreter.allocate_tensors()


def _invoke(interpreter, inputs, value):
    for details in inputs:
        if np.dtype(details["dtype"]).kind in "fiub":
            interpreter.set_tensor(details["index"], np.full(details["shape"], value, details["dtype"]))
    interpreter.invoke()
    for details in interpreter.get_output_details():
        interpreter.get_tensor(details["index"])


if __name__ == "__main__":
    main()
