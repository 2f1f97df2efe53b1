"""Updates over the air: a clustered DS-CNN-L, fine-tuned on new speakers, as a difference from the older file.

KERAS_BACKEND=tensorflow python benchmarks/over_the_air.py
KERAS_BACKEND=tensorflow python benchmarks/over_the_air.py --epochs 2 --learning-rate 1e-4 --keep FOLDER
"""

import pathlib
import shutil
import tempfile
import time

import keras
import numpy as np
from _common import Table, environment, load_model, write_results
from _common import parser as common_parser
from _training import Recipe, cut, speaker_parts, train_by_recipe

import keras_mot
from keras_mot.clustering import ClusteringConfig, cluster_weights, strip_clustering
from keras_mot.export import export_litert, pack, unpack
from keras_mot.quantization import INT8, quantize_post_training

ASKED = 0.5
FREQUENCY = 10


def packed(path, folder, base=None):
    """(package, seconds to pack, seconds to unpack) of a file; what is unpacked is compared with it."""
    started = time.perf_counter()
    package = pack(path, folder / "packed.kmot", base=base)
    middle = time.perf_counter()
    again = unpack(package.path, folder / "again.tflite", base=base)
    ended = time.perf_counter()
    assert again.read_bytes() == path.read_bytes()
    return package, middle - started, ended - middle


def written(model, calibration, path):
    """The model in integers, without its transforms, as a file."""
    quantized = quantize_post_training(strip_clustering(keras_mot.layers.copy_model(model)), INT8, calibration)
    return export_litert(quantized, path).path


def measured(name, path, older, test, folder):
    """One row: the file alone, and as a difference from the older one."""
    row = keras_mot.analysis.measure(path, data=test, batch_size=100, latency_runs=0, progress=False)[path.name]
    alone, *_ = packed(path, folder)
    values = {
        "name": name,
        "accuracy": row.metric,
        "bytes": row.bytes,
        "zipped_bytes": row.zipped_bytes,
        "brotli_bytes": alone.bytes,
    }
    if older is not None:
        package, packing, unpacking = packed(path, folder, older)
        old, new = (np.frombuffer(each.read_bytes(), "u1") for each in (older, path))
        size = min(len(old), len(new))
        values |= {
            "delta_bytes": package.bytes,
            "method": package.method,
            "of_brotli": package.bytes / alone.bytes,
            "bytes_changed": float(np.mean(old[:size] != new[:size])),
            "pack_seconds": packing,
            "unpack_seconds": unpacking,
        }
    print(values, flush=True)
    return values


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--clusters", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=1, help="of the fine-tuning")
    parser.add_argument("--learning-rate", type=float, nargs="+", default=[1e-5, 1e-4], help="of the fine-tuning")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the files")
    arguments = parser.parse_args()
    _, new_speakers, test = next(iter(speaker_parts(3)))
    count = len(new_speakers[1]) // 2
    first = cut(new_speakers, count)
    second = tuple(part[count:] for part in new_speakers)
    if arguments.quick:
        first, second, test = cut(first, 64), cut(second, 64), cut(test, 64)
    keras.utils.set_random_seed(0)
    model = cluster_weights(load_model("kws/ds_cnn_l.keras"), ClusteringConfig(arguments.clusters, frequency=FREQUENCY))
    recipe = Recipe(epochs=1, learning_rate=1e-4, batch_size=32)
    train_by_recipe(model, first, recipe, from_logits=True)
    weights, rows = model.get_weights(), []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        older = written(model, first[0][:200], folder / "older.tflite")
        rows.append(measured("older", older, None, test, folder))
        for rate in arguments.learning_rate:
            model.set_weights(weights)
            train_by_recipe(model, second, Recipe(arguments.epochs, rate, batch_size=32), from_logits=True)
            newer = written(model, first[0][:200], folder / f"newer_{rate:g}.tflite")
            rows.append(measured(f"fine-tuned at {rate:g}", newer, older, test, folder))
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            for file in folder.glob("*er*.tflite"):
                shutil.copy(file, arguments.keep)
    table = Table(
        f"DS-CNN-L, {arguments.clusters} clusters, int8, before and after fine-tuning on other speakers",
        (
            *("file", "accuracy", "bytes", "zip", "brotli", "delta", "of brotli", "bytes changed"),
            *("pack, s", "unpack, s"),
        ),
        notes=(f"Delta: the package of `keras_mot.export.pack(base=...)`; asked: at most {ASKED:.0%} of brotli's.",),
    )
    for row in rows:
        cells = [row["name"], f"{row['accuracy']:.2%}"]
        cells += [f"{row[key]:,}" for key in ("bytes", "zipped_bytes", "brotli_bytes")]
        if "delta_bytes" in row:
            cells += [f"{row['delta_bytes']:,}", f"{row['of_brotli']:.1%}", f"{row['bytes_changed']:.1%}"]
            cells += [f"{row[key]:.2f}" for key in ("pack_seconds", "unpack_seconds")]
        table.add(*cells, *[""] * (len(table.headers) - len(cells)))
    values = {"environment": environment(), "rows": rows, "asked": ASKED}
    write_results(arguments, f"over_the_air_{keras.backend.backend()}", values, [table])


if __name__ == "__main__":
    main()
