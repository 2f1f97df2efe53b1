"""`keras-mot inspect`: what a `.keras`, `.tflite` or `.onnx` file holds."""

import argparse
import pathlib

from keras_mot._formats import KERAS, format_of_name
from keras_mot._tables import text_table, wrapped
from keras_mot.cli._errors import UsageError, blamed_on_input
from keras_mot.cli._files import existing_file
from keras_mot.cli._models import load_model
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Shows parameters, sizes and the sparsity of each tensor of a .keras, .tflite or
.onnx file.
Of a model saved in the middle of pruning or clustering it also shows how far that is."""

_ENTROPY = (
    "entropy: the bits that a value needs at least, to say which of the different values it is, without the table of "
    "these; in the file a value has the bits of its type."
)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "inspect",
        help="show parameters, sizes and the sparsity of each tensor of a file",
        description=_DESCRIPTION,
        epilog="example:\n  keras-mot inspect small.tflite",
    )
    parser.add_argument("file", metavar="FILE", help="a .keras, .tflite or .onnx file")
    parser.set_defaults(run=run, check=check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    path = existing_file(options.file, "a `.keras`, `.tflite` or `.onnx` file")
    if path.suffix != KERAS and format_of_name(path) is None:
        raise UsageError(f"'{path}' is no `.keras`, `.tflite` or `.onnx` file.")


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    path = pathlib.Path(options.file)
    if path.suffix == KERAS:
        return _inspect_keras(path)
    import keras_mot

    format_of_name(path).check_run()
    with blamed_on_input():
        measured = keras_mot.analysis.measure(path, latency_runs=0, progress=False)[path.name]
    speed = None if measured.sparse_speed is None else wrapped(f"Speed: {measured.sparse_speed}.")
    return _result(path, measured.to_dict(), speed)


def _inspect_keras(path):
    model = load_model(path)
    import keras_mot

    pruning = keras_mot.sparsity.pruning_report(model)
    clustering = keras_mot.clustering.clustering_report(model)
    if pruning.pruned or clustering.clustered:
        return _inspect_in_training(path, model, pruning, clustering)
    with blamed_on_input():
        measured = keras_mot.analysis.measure({path.name: model}, latency_runs=0, progress=False)[path.name]
    return _result(path, {**measured.to_dict(), **_file_sizes(path)})


def _inspect_in_training(path, model, pruning, clustering):
    import keras_mot

    plain = keras_mot.layers.strip(keras_mot.layers.copy_model(model))
    measured = keras_mot.analysis.measure({path.name: plain}, latency_runs=0, progress=False)[path.name]
    data, texts = {**measured.to_dict(), **_file_sizes(path)}, []
    if pruning.pruned:
        data["pruning"] = {
            "sparsity": pruning.sparsity,
            "step": max(row.step for row in pruning.pruned),
            **_rows("pruned", pruning.pruned, ("path", "shape", "zeros", "sparsity", "target", "step"), pruning),
        }
        texts.append(_progress_text("pruning", data["pruning"]["step"], "sparsity.strip_pruning", pruning))
    if clustering.clustered:
        columns = ("path", "shape", "number_of_clusters", "unique_values", "entropy", "step")
        data["clustering"] = {
            "step": max(row.step for row in clustering.clustered),
            **_rows("clustered", clustering.clustered, columns, clustering),
        }
        step = data["clustering"]["step"]
        texts.append(_progress_text("clustering", step, "clustering.strip_clustering", clustering))
    return _result(path, data, "\n".join(texts))


def _rows(name, rows, columns, report):
    """The rows of a report, and the weights that it left alone, as JSON values."""
    values = [{column: getattr(row, column) for column in columns} for row in rows]
    for value in values:
        value["shape"] = list(value["shape"])
    return {name: values, "left_alone": [{"path": path, "reason": reason} for path, reason in report.left_alone]}


def _progress_text(activity, steps, function, report):
    return (
        f"In the middle of {activity}, after {steps:,} step{'' if steps == 1 else 's'}. It goes on with `fit`; "
        f"`keras_mot.{function}` makes it final. The tensors above are as they would be then.\n"
        f"{str(report).rstrip()}"
    )


def _file_sizes(path):
    """Of the file itself, as it lies there: it may hold the state of an optimizer."""
    from keras_mot.analysis import zipped_bytes
    from keras_mot.analysis.brotli import brotli_bytes

    content = path.read_bytes()
    zipped = zipped_bytes(content)
    sizes = {"bytes": len(content), "zipped_bytes": zipped, "brotli_bytes": brotli_bytes(content, zipped)}
    return {**sizes, "path": str(path)}


def _result(path, data, note=None):
    rows = [
        (
            tensor["name"],
            "x".join(map(str, tensor["shape"])) or "scalar",
            tensor["dtype"],
            f"{tensor['size']:,}",
            f"{tensor['sparsity']:.1%}",
            f"{tensor['unique_values']:,}",
            f"{tensor['entropy']:.2f}",
            "yes" if tensor["sparse_encoding"] else "",
            f"{tensor['encoding']}, {tensor['stored_bytes']:,} bytes" if tensor["encoding"] else "",
        )
        for tensor in data["tensors"]
    ]
    headers = ["tensor", "shape", "type", "values", "sparsity", "different", "entropy (bits)"]
    headers += ["sparse encoding", "compressed for TFLM"]
    shown = [place for place, _ in enumerate(headers) if place < len(headers) - 2 or any(row[place] for row in rows)]
    headers, rows = [headers[place] for place in shown], [[row[place] for place in shown] for row in rows]
    brotli = "" if data["brotli_bytes"] is None else f", {data['brotli_bytes']:,} by brotli"
    head = (
        f"{path}: {data['parameters']:,} parameters, {data['bytes']:,} bytes, "
        f"{data['zipped_bytes']:,} zipped{brotli}; sparsity {data['sparsity']:.1%} of kernels, "
        f"{data['overall_sparsity']:.1%} of all parameters."
    )
    return Result("\n".join(part for part in (wrapped(head), text_table(headers, rows, _ENTROPY), note) if part), data)
