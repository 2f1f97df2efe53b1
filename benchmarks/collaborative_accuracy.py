"""Pruning, clustering and quantization together: accuracy in the runtime, and bytes, beside each technique alone.

KERAS_BACKEND=tensorflow python benchmarks/collaborative_accuracy.py mnist
KERAS_BACKEND=tensorflow python benchmarks/collaborative_accuracy.py ds-cnn-l
KERAS_BACKEND=tensorflow python benchmarks/collaborative_accuracy.py resnet8
"""

import dataclasses
import pathlib
import tempfile
import time
import warnings

import keras
import numpy as np
from _common import Table, cifar10, environment, load_model, mnist, run_child, write_results
from _common import parser as common_parser
from _training import Augmented, Recipe, cut, mean_row, speaker_parts, steps_of, train_by_recipe
from pruning_accuracy import DS_CNN, DS_CNN_LEFT_ALONE, pruning_of_the_rest

import keras_mot
from keras_mot.clustering import ClusteringConfig, ExactKMeans, cluster_weights
from keras_mot.export import export_litert
from keras_mot.layers import copy_model, strip, transformed_weights
from keras_mot.layers.activation_quantizer import is_quantized
from keras_mot.quantization import INT4_WEIGHTS, INT8, QuantizationScheme, quantize_model, quantize_post_training
from keras_mot.recipes import PRESETS
from keras_mot.sparsity import PolynomialDecay, WholeModel, prune_low_magnitude

PEER = pathlib.Path(__file__).with_name("_collaborative_peer.py")
CALIBRATION = 500
# As many epochs at batch 128 as TFMOT's figures were made with: two of pruning, one of each other step.
PRUNING = Recipe(epochs=2, learning_rate=2e-3, pruning_share=0.4)
ONE_EPOCH = Recipe(epochs=1, learning_rate=2e-4)


@dataclasses.dataclass(frozen=True)
class Trial:
    """A model with its data, and how it is trained.

    Args:
        model: the float model, which is the teacher too.
        data: function from a `Recipe`, a seed and the teacher to what is trained on.
        calibration: inputs.
        test: (inputs, labels).
        from_logits: whether the model returns logits.
    """

    model: keras.Model
    data: object
    calibration: np.ndarray
    test: tuple
    from_logits: bool = False

    def trained(self, model, recipe, seed=0):
        """Trains a model in place; returns it and the seconds."""
        keras.utils.set_random_seed(seed)
        return model, train_by_recipe(model, self.data(recipe, seed, self.model), recipe, self.from_logits)

    def taught_by(self, model):
        """The same data with another float model."""
        return dataclasses.replace(self, model=model)

    def plain(self):
        """A copy of the float model."""
        return copy_model(self.model)

    def pruned(self, sparsity, recipe, seed=0, **options):
        steps = steps_of(self.data(recipe, seed, self.model), recipe)
        end = max(1, int(recipe.pruning_share * steps))
        schedule = PolynomialDecay(
            min(recipe.initial_sparsity, sparsity), sparsity, 0, end, frequency=min(recipe.frequency, max(1, end // 10))
        )
        return self.trained(prune_low_magnitude(self.model, schedule, **options), recipe, seed)

    def clustered(self, model, clusters, recipe, seed=0, entropy_weight=0.0):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*whose weights are clustered")  # quantization keeps the values
            initialization = ExactKMeans(entropy_weight=entropy_weight)
            clustered = cluster_weights(model, ClusteringConfig(clusters, initialization=initialization))
        return self.trained(clustered, recipe, seed) if recipe else (clustered, 0.0)

    def quantized(self, model, recipe, scheme=INT8, seed=0, batch_norm_share=0.0):
        """After training, if `recipe` is `None`; else trained, for a share of the steps with batch statistics."""
        if recipe is None:
            return quantize_post_training(model, scheme, self.calibration), 0.0
        steps = int(batch_norm_share * steps_of(self.data(recipe, seed, self.model), recipe))
        quantized = quantize_model(model, scheme, calibration_data=self.calibration, batch_norm_steps=steps)
        return self.trained(quantized, recipe, seed)

    def row(self, name, model, seconds=0.0, **values):
        """What the file of a model is, and does in the runtime."""
        plain = model if is_quantized(model) or not transformed_weights(model) else strip(copy_model(model))
        with tempfile.TemporaryDirectory() as folder:
            file = export_litert(plain, pathlib.Path(folder) / "model.tflite", sparse_encoding=False)
            report = keras_mot.analysis.measure(
                {"file": file}, data=self.test, batch_size=100, latency_runs=0, progress=False
            )
            measured = report["file"]
        kernels = [tensor for tensor in measured.tensors if len(tensor.shape) > 1 and tensor.size > 1]
        row = {
            "name": name,
            "accuracy": measured.metric,
            "bytes": measured.bytes,
            "zipped_bytes": measured.zipped_bytes,
            "sparsity": measured.sparsity,
            "least_sparsity": min(tensor.sparsity for tensor in kernels),
            "values": max(tensor.unique_values for tensor in kernels),
            "entropy_bytes": sum(tensor.entropy * tensor.size for tensor in kernels) / 8,
            "fit_seconds": round(seconds, 1),
            **values,
        }
        print(row, flush=True)
        return row


def mnist_trial(arguments):
    """(training data, test data, `Trial`) of the MNIST CNN."""
    train, test = mnist()
    if arguments.quick:
        train, test = cut(train, 640), cut(test, 500)
    model = load_model("mnist/mnist_cnn.keras")
    return train, test, Trial(model, lambda recipe, seed, teacher: train, train[0][:CALIBRATION], test)


def mnist_rows(arguments):
    """TFMOT's chain on the MNIST CNN, with its epochs and learning rates."""
    train, test, trial = mnist_trial(arguments)
    rows = [trial.row("float", trial.model)]
    pruned, seconds = trial.pruned(0.9, PRUNING)
    rows.append(trial.row("prune 90 %", pruned, seconds))
    rows.append(trial.row("prune 90 %, then int8 after training", *trial.quantized(pruned, None)))
    rows.append(trial.row("prune 90 %, then int8 trained (PQAT)", *trial.quantized(pruned, ONE_EPOCH)))
    both, seconds = trial.clustered(pruned, 16, ONE_EPOCH)
    rows.append(trial.row("prune 90 %, cluster 16", both, seconds))
    rows.append(trial.row("prune 90 %, cluster 16, then int8 after training", *trial.quantized(both, None)))
    rows.append(trial.row("prune 90 %, cluster 16, then int8 trained (PCQAT)", *trial.quantized(both, ONE_EPOCH)))
    clustered, seconds = trial.clustered(trial.model, 16, ONE_EPOCH)
    rows.append(trial.row("cluster 16", clustered, seconds))
    rows.append(trial.row("cluster 16, then int8 after training", *trial.quantized(clustered, None)))
    rows.append(trial.row("cluster 16, then int8 trained (CQAT)", *trial.quantized(clustered, ONE_EPOCH)))
    clustered, seconds = trial.clustered(trial.model, 16, ONE_EPOCH, entropy_weight=0.02)
    rows.append(trial.row("cluster 16, entropy weight 0.02", clustered, seconds))
    rows.append(trial.row("cluster 16, entropy weight 0.02, CQAT", *trial.quantized(clustered, ONE_EPOCH)))
    rows += deep_compression(trial, train, test)
    notes = [
        "Asked: PCQAT 99.22 %, 420,000 bytes zipped, 90 % zeros and 16 values in every kernel; PQAT 99.23 %, 600,000; "
        "CQAT 99.35 %, 1,600,000, 16 values; prune 2,000,000, with int8 500,000, at 99.13 %; deep-compression 131,000 "
        "at 99.0 %."
    ]
    return rows, notes


def mnist_sizes(arguments):
    """The same, with settings for the size: a coarser grid, and shared values that zip well."""
    _, _, trial = mnist_trial(arguments)
    pruned, _ = trial.pruned(0.9, PRUNING)
    rows = []
    for bits in (8, 7, 6, 5):
        scheme = QuantizationScheme(weight_bits=bits, per_channel=False)
        name = f"prune 90 %, weights of {bits} bits, one scale for each kernel"
        rows.append(trial.row(f"{name}, after training", *trial.quantized(pruned, None, scheme)))
        if bits in (7, 5):
            rows.append(trial.row(f"{name}, trained (PQAT)", *trial.quantized(pruned, ONE_EPOCH, scheme)))
    both, _ = trial.clustered(pruned, 16, ONE_EPOCH, entropy_weight=0.02)
    rows.append(trial.row("prune 90 %, cluster 16, entropy weight 0.02", both))
    rows.append(trial.row("the same, then int8 after training", *trial.quantized(both, None)))
    rows.append(trial.row("the same, then int8 trained (PCQAT)", *trial.quantized(both, ONE_EPOCH)))
    return rows, ["Asked: PQAT 99.23 %, 600,000 bytes zipped; PCQAT 99.22 %, 420,000."]


def deep_compression(trial, train, test):
    """The preset, by one call."""
    recipe = PRESETS["deep-compression"]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = keras_mot.compress(trial.model, recipe, train, test, output_dir=folder, latency_runs=0)
        seconds = time.perf_counter() - started
        print(result, flush=True)
        return [trial.row("deep-compression (preset)", result.model, seconds)]


# Seven epochs of tuning, five of pruning or clustering with the tuned model as the teacher, and one of quantization.
DS_TUNING = Recipe(epochs=7, learning_rate=3e-4, batch_size=32, decay_shares=(0.6, 0.8), temperature=2.0)
DS_EQUAL = dataclasses.replace(DS_TUNING, epochs=13)
DS_PRUNING = dataclasses.replace(
    DS_TUNING, epochs=5, initial_sparsity=0.3, pruning_share=0.4, frequency=10, decay_shares=(0.7, 0.9)
)
DS_CLUSTERING_TUNED = dataclasses.replace(DS_TUNING, epochs=5, learning_rate=2e-4)
DS_PRUNING_OF_1X1 = dataclasses.replace(DS_CNN, epochs=6)
DS_CLUSTERING = Recipe(epochs=6, learning_rate=3e-4, batch_size=32, decay_shares=(0.6, 0.8), temperature=2.0)
# Training without batch statistics costs accuracy on other speakers (two epochs at 2e-5: 2.7 points on part 0), and
# with them, too (two epochs at 5e-5: 0.4 to 0.9).
DS_LAST = Recipe(epochs=1, learning_rate=1e-6, batch_size=32, decay_shares=(0.5, 0.8), temperature=2.0)


def keyword_rows(arguments):
    """DS-CNN-L, tuned and compressed, cross-validated over speakers, beside the float model trained for as long."""
    rows, epochs = [], {"epochs": 1} if arguments.quick else {}
    equal, tuning, pruning, clustering, last = (
        dataclasses.replace(recipe, **epochs)
        for recipe in (DS_EQUAL, DS_TUNING, DS_PRUNING, DS_CLUSTERING_TUNED, DS_LAST)
    )
    model = load_model("kws/ds_cnn_l.keras")
    for number, trial in keyword_trials(model, arguments.quick):
        clips = {"clips": len(trial.test[1])}
        rows.append(trial.row("float, as given", trial.model, **clips))
        rows.append(trial.row("float, trained for as long", *trial.trained(trial.plain(), equal, number), **clips))
        tuned, seconds = trial.trained(trial.plain(), tuning, number)
        rows.append(trial.row("float, tuned: the start of what follows", tuned, seconds, **clips))
        trial = trial.taught_by(tuned)
        pruned, seconds = trial.pruned(0.5, pruning, number)
        rows.append(trial.row("prune 50 %", pruned, seconds, **clips))
        rows.append(trial.row("prune 50 %, then int8 after training", *trial.quantized(pruned, None), **clips))
        rows.append(
            trial.row("prune 50 %, then int8 trained (PQAT)", *trial.quantized(pruned, last, INT8, number), **clips)
        )
        clustered, seconds = trial.clustered(tuned, 32, clustering, number, entropy_weight=0.025)
        rows.append(trial.row("cluster 32", clustered, seconds, **clips))
        rows.append(trial.row("cluster 32, then int8 after training", *trial.quantized(clustered, None), **clips))
        row = trial.row(
            "cluster 32, then int8 trained (CQAT)", *trial.quantized(clustered, last, INT8, number), **clips
        )
        rows.append(row)
        both, seconds = trial.clustered(pruned, 32, last, number)
        rows.append(trial.row("prune 50 %, cluster 32, int8 after training", *trial.quantized(both, None), **clips))
    notes = [
        "Means over three parts of the speakers, each measured on after training on the others. Asked: PQAT at most "
        "0.3 points below float trained for as long; CQAT at most 0.5, 240,000 bytes zipped.",
        "All start from the tuned model, which is the teacher then. Clustered with an entropy weight of 0.025.",
    ]
    return means_and_parts(rows), notes


def keyword_sizes(arguments):
    """DS-CNN-L with 32 values that zip well, and with zeros in the 1x1 convolutions alone; beside `ds-cnn-l`."""
    rows, epochs = [], {"epochs": 1} if arguments.quick else {}
    clustering, pruning, last = (
        dataclasses.replace(recipe, **epochs) for recipe in (DS_CLUSTERING, DS_PRUNING_OF_1X1, DS_LAST)
    )
    model = load_model("kws/ds_cnn_l.keras")
    for number, trial in keyword_trials(model, arguments.quick):
        clips = {"clips": len(trial.test[1])}
        clustered, seconds = trial.clustered(model, 32, clustering, number, entropy_weight=0.02)
        rows.append(trial.row("cluster 32, entropy weight 0.02", clustered, seconds, **clips))
        rows.append(trial.row("the same, then int8 after training", *trial.quantized(clustered, None), **clips))
        row = trial.row("the same, then int8 trained (CQAT)", *trial.quantized(clustered, last, INT8, number), **clips)
        rows.append(row)
        options = pruning_of_the_rest(model, 0.5, DS_CNN_LEFT_ALONE)
        pruned, seconds = trial.pruned(options.pop("sparsity"), pruning, number, **options)
        rows.append(trial.row("prune 50 %, in 1x1 convolutions", pruned, seconds, **clips))
        rows.append(trial.row("prune so, then int8 after training", *trial.quantized(pruned, None), **clips))
        row = trial.row("prune so, then int8 trained (PQAT)", *trial.quantized(pruned, last, INT8, number), **clips)
        rows.append(row)
    notes = ["Means over three parts. Asked of CQAT: 240,000 bytes zipped; of PQAT: 0.3 points below float."]
    return means_and_parts(rows), notes


def keyword_trials(model, quick):
    """(number, `Trial`) of each part of the speakers."""
    for number, train, test in speaker_parts(3, quick):

        def data(recipe, seed, teacher, train=train):
            return Augmented(*train, seed, recipe, shift=(4, 0), teacher=teacher, logits=True)

        yield number, Trial(model, data, train[0][-205:], test, from_logits=True)


def means_and_parts(rows):
    """The means over the parts, weighted by clips, and the rows of the parts."""
    keys = ("entropy_bytes", "values", "least_sparsity")
    means = []
    for name in dict.fromkeys(row["name"] for row in rows):
        chosen = [row for row in rows if row["name"] == name]
        more = {key: (max if key == "values" else np.mean)([row[key] for row in chosen]) for key in keys}
        means.append({**mean_row(name, rows), **more})
    return means + [{**row, "name": f"{row['name']} (a part)"} for row in rows]


RN_PRUNING = Recipe(epochs=4, learning_rate=1e-3, decay_shares=(0.7, 0.9), pruning_share=0.5)
RN_CLUSTERING = Recipe(epochs=1, learning_rate=2e-4, decay_shares=(0.6, 0.85), frequency=10)
RN_QUANTIZATION = Recipe(epochs=1, learning_rate=1e-4, decay_shares=(0.5, 0.8))
RN_BATCH_NORM_SHARE = 0.8


def resnet8_rows(arguments):
    """ResNet-8 on CIFAR-10: the curve of accuracy against zipped size."""
    train, test = cifar10("train"), cifar10("test")
    if arguments.quick:
        train, test = cut(train, 640), cut(test, 500)
    model = load_model("cifar10/resnet8_jpegft.keras")

    def data(recipe, seed, teacher):
        return Augmented(*train, seed, recipe, shift=(4, 4), flip=True, teacher=teacher)

    chosen = np.random.default_rng(0).permutation(len(train[1]))[:CALIBRATION]
    trial = Trial(model, data, train[0][chosen], test)

    def trained(given):
        return trial.quantized(given, RN_QUANTIZATION, INT8, batch_norm_share=RN_BATCH_NORM_SHARE)

    rows = [trial.row("float", model), trial.row("int8 after training", *trial.quantized(model, None))]
    rows.append(trial.row("4-bit weights after training", *trial.quantized(model, None, INT4_WEIGHTS)))
    for sparsity in (0.0, *arguments.sparsities):
        pruned, name = model, ""
        if sparsity:
            pruned, _ = trial.pruned(sparsity, RN_PRUNING, scope=WholeModel(min_density=0.2))
            name = f"prune {sparsity:.0%}, "
            rows.append(trial.row(f"{name}int8 after training", *trial.quantized(pruned, None)))
        for clusters in (32, 16):
            clustered, _ = trial.clustered(pruned, clusters, RN_CLUSTERING)
            rows.append(trial.row(f"{name}cluster {clusters}, int8 after training", *trial.quantized(clustered, None)))
            rows.append(trial.row(f"{name}cluster {clusters}, int8 trained", *trained(clustered)))
    return rows, ["Asked: the smallest file at most 0.5 points below float."]


def rows_table(title, rows, notes):
    headers = ("model", "accuracy in runtime, %", ".tflite bytes", "zipped", "zeros, %", "least in a kernel, %")
    table = Table(title, (*headers, "values", "entropy, bytes", "fit, s"), notes=tuple(notes))
    for row in rows:
        table.add(
            row["name"],
            f"{100 * row['accuracy']:.2f}",
            f"{row['bytes']:,}",
            f"{row['zipped_bytes']:,}",
            f"{100 * row['sparsity']:.2f}",
            f"{100 * row['least_sparsity']:.2f}",
            f"{int(row['values']):,}",
            f"{int(row['entropy_bytes']):,}",
            row.get("fit_seconds", ""),
        )
    return table


def plot(rows, path):
    """Accuracy against zipped size."""
    try:
        import matplotlib
    except ImportError:
        print("No plot: pip install matplotlib")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 5))
    ordered = sorted(rows, key=lambda row: row["zipped_bytes"])
    frontier, best = [], 0.0
    for number, row in enumerate(ordered, 1):
        point = row["zipped_bytes"] / 1000, 100 * row["accuracy"]
        axes.plot(*point, "o", color="tab:blue", label=f"{number}: {row['name']}, {point[0]:.0f} kB, {point[1]:.2f} %")
        axes.annotate(str(number), point, textcoords="offset points", xytext=(4, 4), fontsize=8)
        if point[1] > best:
            best = point[1]
            frontier.append(point)
    axes.step(*zip(*frontier, strict=True), where="post", color="tab:blue", alpha=0.4)
    axes.set_xscale("log")
    ticks = (40, 50, 60, 80, 100, 200, 300)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("zipped .tflite, kB")
    axes.set_ylabel("accuracy in the runtime, %")
    axes.axhline(100 * rows[0]["accuracy"] - 0.5, linestyle=":", color="gray")
    axes.legend(handlelength=0, markerscale=0, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=110)


EXPERIMENTS = {
    "mnist": mnist_rows,
    "mnist-sizes": mnist_sizes,
    "ds-cnn-l": keyword_rows,
    "ds-cnn-l-sizes": keyword_sizes,
    "resnet8": resnet8_rows,
}


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.3, 0.5], help="resnet8")
    parser.add_argument("--peer", metavar="PYTHON", help="mnist: interpreter that has TFMOT, see README.md")
    arguments = parser.parse_args()
    rows, notes = EXPERIMENTS[arguments.experiment](arguments)
    if arguments.peer and arguments.experiment == "mnist":
        from _common import data_folder

        options = [data_folder(), *(["--quick"] if arguments.quick else [])]
        rows += run_child(PEER, options, "tensorflow", arguments.peer, {"TF_USE_LEGACY_KERAS": "1"})["rows"]
    values = {"environment": environment(), "version": keras_mot.__version__, "rows": rows}
    name = f"collaborative_{arguments.experiment}_{keras.backend.backend()}"
    write_results(arguments, name, values, [rows_table(arguments.experiment, rows, notes)])
    if arguments.experiment == "resnet8" and (arguments.output or not arguments.quick):
        plot(rows, (arguments.output or pathlib.Path(__file__).parent / "results") / f"{name}.png")


if __name__ == "__main__":
    main()
