"""What the benchmarks share: data, the record of the environment, tables and result files."""

import argparse
import dataclasses
import datetime
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = pathlib.Path(__file__).resolve().parent / "results"
BACKENDS = ("tensorflow", "jax", "torch")
_PACKAGES = ("keras", "keras-mot", "numpy", "tensorflow", "tensorflow-cpu", "jax", "torch", "ai-edge-litert")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def data_folder():
    """The folder of real models and data: `KERAS_MOT_DATA`, or `../shared/data` beside the repository."""
    folder = pathlib.Path(os.environ.get("KERAS_MOT_DATA", ROOT.parent / "shared" / "data")).resolve()
    if not (folder / "load.py").is_file():
        sys.exit(
            f"The benchmarks read real models and data, which are not part of the repository.\n"
            f"Looked for: {folder}/load.py\n"
            f"Set KERAS_MOT_DATA to the folder that holds load.py, mnist/, cifar10/ and kws/."
        )
    return folder


def data_file(name):
    """The path of a file in the data folder, or a kind exit if it is missing."""
    path = data_folder() / name
    if not path.is_file():
        sys.exit(f"This benchmark needs '{name}' in the data folder, and there is none: {path}")
    return path


@functools.cache
def loaders():
    """The module `load.py` of the data folder."""
    spec = importlib.util.spec_from_file_location("keras_mot_benchmark_data", data_folder() / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_model(name):
    """A Keras model of the data folder, not compiled."""
    import keras

    return keras.models.load_model(data_file(name), compile=False)


def mnist():
    """((x_train, y_train), (x_test, y_test)): images scaled to [0, 1]; training images shuffled once."""
    import numpy as np

    data_file("mnist/mnist.npz")
    data = loaders().mnist()
    order = np.random.RandomState(0).permutation(len(data["x_train"]))  # the file is sorted by class

    def images(name):
        return data[name][..., None].astype("float32") / 255.0

    return (
        (images("x_train")[order], data["y_train"][order].astype("int32")),
        (images("x_test"), data["y_test"].astype("int32")),
    )


def cifar10(split):
    """(x, y): images as float32 in 0..255, and labels."""
    data_file("cifar10/cifar10_jpeg.npz")
    x, y = loaders().cifar10(split)
    return x.astype("float32"), y.astype("int32")


def compile_classifier(model, optimizer, from_logits=False, **options):
    """Compiles for integer labels, with an optimizer or with Adam of that learning rate; `options` of `compile`."""
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        optimizer = keras.optimizers.Adam(optimizer)
    model.compile(optimizer, loss, metrics=["accuracy"], **options)


def environment(backend=None):
    """Versions, processor and load of the machine, for the record of a result."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "backend": backend or os.environ.get("KERAS_BACKEND", "tensorflow"),
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


@dataclasses.dataclass
class Table:
    """A table of text cells: printed on the terminal, and written as Markdown."""

    title: str
    headers: tuple
    rows: list = dataclasses.field(default_factory=list)
    notes: tuple = ()

    def add(self, *cells):
        self.rows.append([str(cell) for cell in cells])

    def show(self):
        from rich.console import Console
        from rich.table import Table as RichTable

        table = RichTable(title=self.title, title_justify="left", caption="\n".join(self.notes) or None)
        for position, header in enumerate(self.headers):
            table.add_column(header, justify="right" if position else "left")
        for row in self.rows:
            table.add_row(*row)
        Console(width=None if sys.stdout.isatty() else 150).print(table)

    def markdown(self):
        lines = [self.headers, ["---", *["---:"] * (len(self.headers) - 1)], *self.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"### {self.title}\n\n{body}\n{notes}"


def parser(description, output=True):
    """The arguments that all benchmarks have."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    result.add_argument("--quick", action="store_true", help="a short run that only shows that it works")
    if output:
        result.add_argument(
            "--output",
            type=pathlib.Path,
            help="folder of the result files; the default is benchmarks/results, and none with --quick",
        )
    return result


def write_results(arguments, name, values, tables):
    """Prints the tables; writes `name.json` and `name.md`, unless it is a quick run without `--output`."""
    for table in tables:
        table.show()
    folder = arguments.output or (None if arguments.quick else RESULTS)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(values, indent=1, default=float) + "\n")
    text = "\n".join(table.markdown() for table in tables)
    (folder / f"{name}.md").write_text(f"{text}\n{_caption(values['environment'])}\n")
    print(f"Written: {folder / name}.json and .md")


def measure_each(arguments, measure, table, cells, name, **values):
    """Measures the models that were asked for; what is measured is written after each of them.

    Args:
        arguments: of the command, with `models`.
        measure: function of a model's name, to a dictionary.
        table: the `Table` to add rows to.
        cells: function of that dictionary, to the cells behind the name.
        name: of the result files.
        **values: what else is noted in them.
    """
    import keras

    rows = []
    for model in arguments.models:
        row = measure(model)
        rows.append(row)
        print(row, flush=True)
        table.add(model, *cells(row))
        keras.backend.clear_session()
        write_results(arguments, name, {"environment": environment(), **values, "rows": rows}, [table])


def _caption(record):
    packages = ", ".join(f"{key} {value}" for key, value in record["packages"].items() if value)
    return (
        f"Backend {record['backend']}; {packages}; Python {record['python']}; {record['cores']} cores "
        f"({record['processor']}), load average {record['load_average']} at the end; {record['date']}."
    )


def run_child(script, arguments, backend, python=sys.executable, extra_environment=None):
    """Runs a benchmark in a process of its own, for one backend, and returns the JSON that it ends with."""
    process_environment = {**os.environ, "KERAS_BACKEND": backend, **(extra_environment or {})}
    command = [str(python), str(script), *map(str, arguments)]
    process = subprocess.run(command, env=process_environment, stdout=subprocess.PIPE, text=True)
    marked = [line for line in process.stdout.splitlines() if line.startswith("RESULT ")]
    if process.returncode or not marked:
        sys.exit(f"The run for {backend} failed (exit code {process.returncode}).\n{process.stdout[-2000:]}")
    return json.loads(marked[-1].removeprefix("RESULT "))


def send_result(values):
    """Hands values to the process that called `run_child`."""
    print("RESULT " + json.dumps(values, default=float), flush=True)
