"""`keras-mot inspect`: what a `.keras` or `.tflite` file holds."""

import argparse

from keras_mot.analysis._tables import text_table
from keras_mot.cli._errors import UsageError, blamed_on_input
from keras_mot.cli._files import existing_file
from keras_mot.cli._models import load_model
from keras_mot.cli._result import Result


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "inspect",
        parents=[common],
        help="show parameters, sizes and the sparsity of each tensor of a file",
        description="Shows parameters, sizes and the sparsity of each tensor of a .keras or .tflite file. "
        "Of a model saved in the middle of pruning it also shows how far pruning is.",
    )
    parser.add_argument("file", metavar="FILE", help="a .keras or .tflite file")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    path = existing_file(options.file, "a `.keras` or `.tflite` file")
    if path.suffix == ".keras":
        return _inspect_keras(path)
    if path.suffix != ".tflite":
        raise UsageError(f"'{path}' is neither a `.keras` nor a `.tflite` file.")
    import keras_mot
    from keras_mot.export._dependencies import check_installed

    check_installed("ai_edge_litert")
    with blamed_on_input():
        measured = keras_mot.analysis.measure(path, latency_runs=0, progress=False)[path.name]
    return _result(path, measured.to_dict())


def _inspect_keras(path):
    model = load_model(path)
    import keras_mot

    report = keras_mot.sparsity.pruning_report(model)
    if report.pruned:
        return _inspect_in_training(path, model, report)
    with blamed_on_input():
        measured = keras_mot.analysis.measure({path.name: model}, latency_runs=0, progress=False)[path.name]
    return _result(path, {**measured.to_dict(), **_file_sizes(path)})


def _inspect_in_training(path, model, report):
    import keras_mot

    progress = {
        "sparsity": report.sparsity,
        "step": max(row.step for row in report.pruned),
        "pruned": [
            {
                "path": row.path,
                "shape": list(row.shape),
                "zeros": row.zeros,
                "sparsity": row.sparsity,
                "target": row.target,
                "step": row.step,
            }
            for row in report.pruned
        ],
        "left_alone": [{"path": path, "reason": reason} for path, reason in report.left_alone],
    }
    plain = keras_mot.layers.strip(keras_mot.layers.copy_model(model))
    measured = keras_mot.analysis.measure({path.name: plain}, latency_runs=0, progress=False)[path.name]
    steps = progress["step"]
    text = (
        f"In the middle of pruning, after {steps:,} step{'' if steps == 1 else 's'}. It goes on with `fit`; "
        "`keras_mot.sparsity.strip_pruning` makes it final. The tensors above are as they would be then.\n"
        f"{str(report).rstrip()}"
    )
    return _result(path, {**measured.to_dict(), **_file_sizes(path), "pruning": progress}, text)


def _file_sizes(path):
    """Of the file itself, as it lies there: it may hold the state of an optimizer."""
    from keras_mot.analysis import zipped_bytes

    return {"bytes": path.stat().st_size, "zipped_bytes": zipped_bytes(path), "path": str(path)}


def _result(path, data, note=None):
    rows = [
        (
            tensor["name"],
            "x".join(map(str, tensor["shape"])) or "scalar",
            tensor["dtype"],
            f"{tensor['size']:,}",
            f"{tensor['sparsity']:.1%}",
            "yes" if tensor["sparse_encoding"] else "",
        )
        for tensor in data["tensors"]
    ]
    headers = ["tensor", "shape", "type", "values", "sparsity", "sparse encoding"]
    if not any(row[-1] for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    head = (
        f"{path}: {data['parameters']:,} parameters, {data['bytes']:,} bytes, "
        f"{data['zipped_bytes']:,} zipped; sparsity {data['sparsity']:.1%} of kernels, "
        f"{data['overall_sparsity']:.1%} of all parameters."
    )
    return Result("\n".join(part for part in (head, text_table(headers, rows), note) if part), data)
