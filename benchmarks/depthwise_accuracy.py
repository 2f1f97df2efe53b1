"""What pruning and clustering depthwise kernels like the others costs, and what it saves.

KERAS_BACKEND=tensorflow python benchmarks/depthwise_accuracy.py
"""

import dataclasses
import json
import math
import pathlib
import statistics
import tempfile

import keras
import numpy as np
from _common import Table, data_file, environment, load_model, loaders, run_child, write_results
from _common import parser as common_parser
from _training import Recipe, cut, fine_tune, layer_sizes, speaker_parts, train_by_recipe
from pruning_accuracy import measure

from keras_mot.clustering import cluster_weights, strip_clustering
from keras_mot.layers import find_weights, update_step
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, strip_pruning

PEER = pathlib.Path(__file__).with_name("_depthwise_peer.py")
PRUNING = Recipe(
    epochs=10,
    learning_rate=1e-3,
    batch_size=32,
    initial_sparsity=0.0,
    pruning_share=0.4,
    frequency=10,
    decay_shares=(0.6, 0.85),
)
CLUSTERING = Recipe(epochs=5, learning_rate=3e-4, batch_size=32, decay_shares=(0.6, 0.85))
SPARSITY, CLUSTERS = 0.5, 16
CHOICES = {"left alone": None, "like the others": True}


def trained(model, test, train, seed, quick):
    """The rows of one part of the clips: fine-tuned, pruned, clustered, depthwise kernels left alone or not."""
    pruning, clustering = (dataclasses.replace(each, epochs=1) if quick else each for each in (PRUNING, CLUSTERING))
    plain, _ = fine_tune(model, train, pruning, seed, from_logits=True)
    rows = [{"technique": "float, fine-tuned equally", **measure(plain, test, sparse=False)}]
    for name, included in CHOICES.items():
        settings = {"sparsity": SPARSITY, "include_depthwise": included}
        pruned, _ = fine_tune(model, train, pruning, seed, settings, from_logits=True)
        rows.append({"technique": "50 % pruned", "depthwise": name, **measure(pruned, test, sparse=False)})
        keras.utils.set_random_seed(seed)
        clustered = cluster_weights(model, CLUSTERS, include_depthwise=included)
        train_by_recipe(clustered, train, clustering, from_logits=True)
        stripped = strip_clustering(clustered)
        rows.append({"technique": "16 values", "depthwise": name, **measure(stripped, test, sparse=False)})
    return rows


def one_shot(model, test):
    """The rows of a model that is not trained; with more values."""
    rows = [{"technique": "float, as given", **measure(model, test, sparse=False)}]
    for name, included in CHOICES.items():
        pruned = prune_low_magnitude(model, ConstantSparsity(SPARSITY, 0), include_depthwise=included)
        update_step(pruned, 0)
        row = measure(strip_pruning(pruned), test, sparse=False)
        rows.append({"technique": "50 % pruned", "depthwise": name, **row})
        clustered = strip_clustering(cluster_weights(model, 64, include_depthwise=included))
        rows.append({"technique": "64 values", "depthwise": name, **measure(clustered, test, sparse=False)})
    return rows


def keyword_model(name, arguments, seeds, parts):
    """Yields the rows of a keyword spotting model over parts of the speakers and seeds, and TFMOT's beside them."""
    model = load_model(f"kws/{name}.keras")
    rows = []
    for number, train, test in speaker_parts(3, arguments.quick):
        if number >= parts:
            break
        if arguments.quick:
            train, test = cut(train, 320), cut(test, 200)
        for seed in range(seeds):
            found = trained(model, test, train, seed, arguments.quick)
            if arguments.peer:
                found += of_the_peer(model, train, test, seed, arguments)
            rows += [{"part": number, "seed": seed, "clips": len(test[1]), **row} for row in found]
            yield rows


def of_the_peer(model, train, test, seed, arguments):
    """The same recipes in TFMOT, which leaves depthwise kernels alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        arrays = {f"weight_{index}": value for index, value in enumerate(model.get_weights())}
        np.savez(path / "data.npz", x=train[0], y=train[1], x_test=test[0], y_test=test[1], **arrays)
        layers = [(type(layer).__name__, layer_sizes(layer)) for layer in model.layers[1:]]
        recipes = {
            "pruning": dataclasses.asdict(PRUNING) | ({"epochs": 1} if arguments.quick else {}),
            "clustering": dataclasses.asdict(CLUSTERING) | ({"epochs": 1} if arguments.quick else {}),
        }
        values = {"layers": layers, "seed": seed, "sparsity": SPARSITY, "clusters": CLUSTERS, **recipes}
        (path / "model.json").write_text(json.dumps(values))
        child = run_child(PEER, [path], "tensorflow", arguments.peer, {"TF_USE_LEGACY_KERAS": "1"})
    return [{**row, "depthwise": "TFMOT"} for row in child["rows"]]


def faces():
    """The face model's samples; its own decisions in floats are the labels."""
    with np.load(data_file("wild/fer_mini_xception.npz")) as data:
        return data["x"].astype("float32"), data["y"].argmax(-1).astype("int32")


def images(quick):
    x, y = loaders().imagenet(160)
    return cut((x, y.astype("int32")), 50 if quick else 500)


def summary(rows):
    """Means over the parts, weighted by clips, by seed and over the seeds."""
    means = []
    for key in dict.fromkeys((row["technique"], row.get("depthwise", "")) for row in rows):
        chosen = [row for row in rows if (row["technique"], row.get("depthwise", "")) == key]
        seeds = []
        for seed in sorted({row.get("seed", 0) for row in chosen}):
            parts = [(row["accuracy"], row.get("clips", 1)) for row in chosen if row.get("seed", 0) == seed]
            seeds.append(sum(accuracy * clips for accuracy, clips in parts) / sum(clips for _, clips in parts))
        mean = {"technique": key[0], "depthwise": key[1], "accuracy": statistics.mean(seeds), "seeds": seeds}
        for name in ("sparsity", "zipped_bytes"):
            if name in chosen[0]:
                mean[name] = statistics.mean(row[name] for row in chosen)
        means.append(mean)
    return means


def table_of(title, means, notes):
    headers = ("technique", "depthwise kernels", "accuracy, %", "by seed", "sparsity of kernels, %", "zipped bytes")
    table = Table(title, headers, notes=notes)
    for row in means:
        table.add(
            row["technique"],
            row["depthwise"],
            f"{row['accuracy']:.2%}".rstrip("%"),
            ", ".join(f"{each * 100:.2f}" for each in row["seeds"]),
            f"{row['sparsity']:.2%}".rstrip("%") if "sparsity" in row else "",
            f"{row['zipped_bytes']:,.0f}" if "zipped_bytes" in row else "",
        )
    return table


def share_of_depthwise(model):
    """Their share of the weights that can be pruned."""
    sizes = [(math.prod(weight.variable.shape), weight.depthwise) for weight in find_weights(model)[0]]
    return sum(size for size, depthwise in sizes if depthwise) / sum(size for size, _ in sizes)


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, default=2, help="of ds_cnn_s")
    parser.add_argument("--parts", type=int, default=3, help="how many of the three parts ds_cnn_s is measured on")
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter that has TFMOT, see README.md")
    arguments = parser.parse_args()
    results, tables = {}, {}
    for name in arguments.models:
        path, run, note = EXPERIMENTS[name]
        share = share_of_depthwise(load_model(path))
        notes = (f"Depthwise kernels hold {share:.1%} of the kernels' weights.", note)
        for rows in run(arguments):
            means = summary(rows)
            results[name] = {"depthwise_share": share, "means": means, "rows": rows}
            tables[name] = table_of(name, means, notes)
            values = {"environment": environment(), "pruning": dataclasses.asdict(PRUNING)}
            values |= {"clustering": dataclasses.asdict(CLUSTERING), "results": results}
            # As they come: what is finished is there if the run is stopped.
            write_results(arguments, f"depthwise_accuracy_{keras.backend.backend()}", values, list(tables.values()))


_KEYWORDS = (
    "The 2547 test clips are split by speaker in three parts: trained on two, measured on one, so that no speaker is "
    f"on both sides. True labels. Pruning: {PRUNING}. Clustering: {CLUSTERING}."
)
EXPERIMENTS = {
    "ds_cnn_s": (
        "kws/ds_cnn_s.keras",
        lambda arguments: keyword_model("ds_cnn_s", arguments, arguments.seeds, arguments.parts),
        _KEYWORDS,
    ),
    "ds_cnn_l": (
        "kws/ds_cnn_l.keras",
        lambda arguments: keyword_model("ds_cnn_l", arguments, 1, 1),
        f"One part, one seed. {_KEYWORDS}",
    ),
    "mobilenet_v1_0.50": (
        "imagenet/mobilenet_v1_0.50_160_float.keras",
        lambda arguments: [one_shot(load_model("imagenet/mobilenet_v1_0.50_160_float.keras"), images(arguments.quick))],
        "500 ImageNet images at 160x160, without training.",
    ),
    "fer_mini_xception": (
        "wild/fer_mini_xception.keras",
        lambda arguments: [one_shot(load_model("wild/fer_mini_xception.keras"), faces())],
        "100 faces, without training: agreement with the decisions of the float model.",
    ),
}


if __name__ == "__main__":
    main()
