"""Dense layers and embeddings in few bits with dynamic ranges: speed, accuracy, and KerasHub's backbones.

KERAS_BACKEND=tensorflow python benchmarks/few_bits.py
KERAS_BACKEND=tensorflow python benchmarks/few_bits.py --parts hub --models hub_bert hub_gpt2

KerasHub's models want `pip install --no-deps keras-hub keras-rs regex kagglehub kagglesdk tokenizers sentencepiece`,
also into a folder on the PYTHONPATH. Speeds are medians of interleaved runs, one thread; `OMP_NUM_THREADS=1`.
"""

import dataclasses
import pathlib
import tempfile
import warnings

import keras
import numpy as np
from _common import Table, environment, load_model, loaders, mnist, write_results
from _common import parser as common_parser

import keras_mot
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.quantization import DYNAMIC_INT4, DYNAMIC_INT8, Nearest, quantize_post_training

PARTS = ("speed", "accuracy", "hub")
ASKED = {"dense blocks": {"int8": 5.0, "int4": 9.0}, "text encoder": {"int4": 2.0}}


def in_blocks(size):
    """Weights of 4 bits, so many inputs to a scale."""
    return dataclasses.replace(DYNAMIC_INT4, block_size=size)


# --- speed


def dense_blocks(width=1024):
    """Two blocks of dense layers, four times as wide within, as transformers have them."""
    inputs = keras.Input((width,))
    x = inputs
    for _ in range(2):
        x = keras.layers.Dense(4 * width, activation="relu")(x)
        x = keras.layers.Dense(width)(x)
    return keras.Model(inputs, x, name="dense_blocks")


def text_encoder(length=16):
    """KerasHub's BERT, small and with random weights, on a text of fixed length."""
    from keras_hub import models

    backbone = models.BertBackbone(
        vocabulary_size=8000,
        num_layers=4,
        num_heads=8,
        hidden_dim=512,
        intermediate_dim=2048,
        max_sequence_length=length,
    )
    names = ("padding_mask", "segment_ids", "token_ids")
    inputs = {name: keras.Input((length,), dtype="int32", name=name) for name in names}
    return keras.Model(inputs, backbone(inputs), name="text_encoder")


MODELS = {"dense blocks": dense_blocks, "text encoder": text_encoder}
SCHEMES = {
    "int8": DYNAMIC_INT8,
    "int4": DYNAMIC_INT4,
    "int4, blocks of 32": in_blocks(32),
    "int4, blocks of 128": in_blocks(128),
}


def speed(name, arguments, folder):
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    paths = {"float": folder / "float.tflite"}
    export_litert(model, paths["float"], verify=False, batch_size=1)
    verified = {}
    for scheme_name, scheme in SCHEMES.items():
        paths[scheme_name] = folder / f"{len(paths)}.tflite"
        quantized = quantize_post_training(model, scheme)
        exported = export_litert(quantized, paths[scheme_name], batch_size=1, strict=True)
        verified[scheme_name] = exported.verification
    report = keras_mot.analysis.measure(paths, latency_runs=arguments.runs, progress=False)
    rows = {key: {"ms": report[key].latency_ms, "bytes": report[key].bytes} for key in paths}
    return {"name": name, "rows": rows, "verification": verified}


def speed_table(results, arguments):
    table = Table(
        f"Latency of one sample, one thread, medians of {arguments.runs} interleaved runs",
        ("model", "weights", "ms", "of float", "asked", "bytes", "file against model"),
    )
    for result in results:
        floats = result["rows"]["float"]
        for key, row in result["rows"].items():
            asked = ASKED[result["name"]].get(key)
            table.add(
                *(result["name"], key, f"{row['ms']:.2f}", f"x{floats['ms'] / row['ms']:.2f}"),
                f"x{asked:g}" if asked else "",
                *(f"{row['bytes']:,}", result["verification"].get(key, "")),
            )
    return table


# --- accuracy


def mnist_cnn(arguments):
    (x, _), (x_test, y_test) = mnist()
    return load_model("mnist/mnist_cnn.keras"), x[:512], x_test, y_test


def gru_s(arguments):
    data = loaders().keyword_spotting()
    x, samples = data["x"][:, ::2, :, 0], data["x_cal"][:, ::2, :, 0]
    return load_model("kws/gru_s.keras"), samples, x, data["y"]


def cnn_s(arguments):
    data = loaders().keyword_spotting()
    return load_model("kws/cnn_s.keras"), data["x_cal"], data["x"], data["y"]


def sst2_encoder(arguments):
    """An encoder with one block of attention, trained here for a few epochs."""
    data = loaders().sst2()
    keras.utils.set_random_seed(0)
    numbers = keras.Input((56,), dtype="int32")
    x = keras.layers.SpatialDropout1D(0.3)(keras.layers.Embedding(10000, 64)(numbers))
    x = keras.layers.LayerNormalization()(x + keras.layers.MultiHeadAttention(4, 16)(x, x))
    x = keras.layers.Dense(256, activation="gelu")(x)
    x = keras.layers.Dropout(0.3)(keras.layers.GlobalMaxPooling1D()(x))
    model = keras.Model(numbers, keras.layers.Dense(2, activation="softmax")(x), name="sst2_encoder")
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    x_train, y_train = data["x_train"].astype("int32"), data["y_train"].astype("int32")
    model.fit(x_train, y_train, batch_size=128, epochs=1 if arguments.quick else 3, verbose=0)
    return model, x_train[:512], data["x_test"].astype("int32"), data["y_test"].astype("int32")


REAL = {"MNIST CNN": mnist_cnn, "GRU-S": gru_s, "CNN-S": cnn_s, "SST-2 encoder": sst2_encoder}
FORMS = {
    "int8": (DYNAMIC_INT8, False),
    "int4": (DYNAMIC_INT4, False),
    "int4, GPTQ": (DYNAMIC_INT4, True),
    "int4, blocks of 32": (in_blocks(32), False),
    "int4, blocks of 32, GPTQ": (in_blocks(32), True),
}


def accuracy(name, arguments, folder):
    model, samples, x, y = REAL[name](arguments)
    if arguments.quick:
        x, y = x[:200], y[:200]
    found = {}

    def judge(key, model):
        exported = export_litert(model, folder / "model.tflite")
        (outputs,) = LiteRTRunner(exported.path).run(x).values()
        found[key] = {"accuracy": float((outputs.argmax(axis=-1) == y).mean()), "bytes": exported.bytes}

    judge("float", model)
    for key, (scheme, by_data) in FORMS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                judge(key, quantize_post_training(model, scheme, samples, rounding=None if by_data else Nearest()))
        except ValueError as error:
            found[key] = {"refused": " ".join(str(error).split()[:30])}
    return {"name": name, "rows": found}


def accuracy_table(results, arguments):
    table = Table("Accuracy of the files, %, and their bytes", ("model", "float", *FORMS))
    for result in results:
        cells = []
        for key in ("float", *FORMS):
            row = result["rows"][key]
            cells.append("refused" if "refused" in row else f"{100 * row['accuracy']:.2f} ({row['bytes']:,})")
        table.add(result["name"], *cells)
    notes = {row["refused"] for result in results for row in result["rows"].values() if "refused" in row}
    table.notes = tuple(f"refused: {note}" for note in sorted(notes))
    return table


# --- KerasHub

OF_HUB = {"int8": DYNAMIC_INT8, "int4": DYNAMIC_INT4, "int4, blocks of 32": in_blocks(32)}


def backbones():
    """The backbones of the zoo, by name."""
    import _zoo  # noqa: F401
    from _zoo import hub  # noqa: F401
    from _zoo.registry import ARCHITECTURES

    return {name: each for name, each in ARCHITECTURES.items() if each.domain == "hub"}


def of_hub(name, arguments, folder):
    architecture = backbones()[name]
    model, x = architecture.build(), architecture.inputs(32)
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, x)
    expected = _flat(model(tensors, training=False))
    rows = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = keras.tree.map_structure(lambda each: keras.Input(each.shape[1:], dtype=str(each.dtype)), x)
        floats = keras.Model(inputs, model(inputs))  # of the sizes of the data, as the others
        rows["float"] = {"bytes": export_litert(floats, folder / "float.tflite", verify=False, batch_size=1).bytes}
        for key, scheme in OF_HUB.items():
            if key not in arguments.forms:
                continue
            try:
                quantized = quantize_post_training(model, scheme, x, rounding=Nearest())
                exported = export_litert(quantized, folder / "model.tflite", batch_size=1)
                received = _flat(quantized(tensors, training=False))
                rows[key] = {
                    "bytes": exported.bytes,
                    "error": float(np.linalg.norm(received - expected) / np.linalg.norm(expected)),
                    "verification": exported.verification,
                    "in_floats": [list(each) for each in exported.float_operators],
                }
            except (ValueError, RuntimeError) as error:
                rows[key] = {"refused": str(error)}
    return {"name": name, "rows": rows}


def _flat(outputs):
    arrays = map(keras.ops.convert_to_numpy, keras.tree.flatten(outputs))
    return np.concatenate([np.ravel(each).astype("float64") for each in arrays])


def hub_table(results, arguments):
    headers = [cell for key in arguments.forms for cell in (key, "error")]
    table = Table("KerasHub's backbones: bytes, and the relative error against float", ("model", "float", *headers))
    notes = {}
    for result in results:
        cells = [f"{result['rows']['float']['bytes']:,}"]
        for key in arguments.forms:
            row = result["rows"][key]
            if "refused" in row:
                note = row["refused"].splitlines()[0]
                number = notes.setdefault(note, len(notes) + 1)
                cells += [f"refused ({number})", ""]
            else:
                floats = f", {len(row['in_floats'])} in floats" if row["in_floats"] else ""
                cells += [f"{row['bytes']:,}{floats}", f"{row['error']:.3f}"]
        table.add(result["name"], *cells)
    table.notes = tuple(f"({number}) {note}" for note, number in notes.items())
    return table


WORK = {"speed": (speed, speed_table), "accuracy": (accuracy, accuracy_table), "hub": (of_hub, hub_table)}


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", help="names of models; by default all of each part")
    parser.add_argument("--forms", nargs="+", choices=OF_HUB, default=list(OF_HUB), help="of KerasHub's models")
    parser.add_argument("--runs", type=int, default=100)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.runs = 5
    for part in arguments.parts:
        known = {"speed": MODELS, "accuracy": REAL}.get(part) or backbones()
        names = [name for name in known if not arguments.models or name in arguments.models]
        if arguments.quick:
            names = names[:1]
        measure, tabulate = WORK[part]
        results = []
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                results.append(measure(name, arguments, pathlib.Path(folder)))
            print(part, results[-1], flush=True)
        if results:
            values = {"environment": environment(), "results": results}
            write_results(arguments, f"few_bits_{part}", values, [tabulate(results, arguments)])


if __name__ == "__main__":
    main()
