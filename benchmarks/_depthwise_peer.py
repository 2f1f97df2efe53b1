"""The recipes of `depthwise_accuracy.py` in TFMOT, run by the interpreter of an environment that has it.

Argument: a folder with `data.npz` and `model.json`, as `depthwise_accuracy.py` writes them.
"""

import json
import os
import pathlib
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from _tfmot_script import rebuilt


def main():
    folder = pathlib.Path(sys.argv[1])
    values = json.loads((folder / "model.json").read_text())
    with np.load(folder / "data.npz") as data:
        arrays = dict(data)
    weights = [arrays[f"weight_{index}"] for index in range(len(arrays) - 4)]

    def plain():
        model = rebuilt(keras, values["layers"], arrays["x"].shape[1:])
        model.set_weights(weights)
        return model

    def trained(model, recipe, callbacks=()):
        keras.utils.set_random_seed(values["seed"])
        steps = recipe["epochs"] * -(-len(arrays["y"]) // recipe["batch_size"])
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            [int(share * steps) for share in recipe["decay_shares"]],
            [recipe["learning_rate"] / factor for factor in (1, 3, 10)],
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        options = {"batch_size": recipe["batch_size"], "epochs": recipe["epochs"], "verbose": 2}
        model.fit(arrays["x"], arrays["y"], callbacks=list(callbacks), **options)
        return steps

    def row(technique, model):
        accuracy = (model.predict(arrays["x_test"], verbose=0).argmax(-1) == arrays["y_test"]).mean()
        kernels = [value for value in model.get_weights() if value.ndim > 1]
        sparsity = sum((value == 0).sum() for value in kernels) / sum(value.size for value in kernels)
        return {"technique": technique, "accuracy": float(accuracy), "sparsity": float(sparsity)}

    recipe = values["pruning"]
    steps = recipe["epochs"] * -(-len(arrays["y"]) // recipe["batch_size"])
    end = max(1, int(recipe["pruning_share"] * steps)) // recipe["frequency"] * recipe["frequency"]
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        recipe["initial_sparsity"], values["sparsity"], 0, max(recipe["frequency"], end), frequency=recipe["frequency"]
    )
    pruned = tfmot.sparsity.keras.prune_low_magnitude(plain(), schedule)
    trained(pruned, recipe, [tfmot.sparsity.keras.UpdatePruningStep()])
    rows = [row("50 % pruned", tfmot.sparsity.keras.strip_pruning(pruned))]
    clustered = tfmot.clustering.keras.cluster_weights(plain(), values["clusters"])
    trained(clustered, values["clustering"])
    rows.append(row("16 values", tfmot.clustering.keras.strip_clustering(clustered)))
    print("RESULT " + json.dumps({"rows": rows, "version": tfmot.__version__}), flush=True)


if __name__ == "__main__":
    main()
