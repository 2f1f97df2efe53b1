"""Compressed weights for microcontrollers: DS-CNN-L in flash, running in TFLM, and what that costs in accuracy.

KERAS_BACKEND=tensorflow python benchmarks/micro_weights.py --models FOLDER

Trained models are kept in the folder; what is there is not trained again.
"""

import dataclasses
import pathlib
import time

import keras
from _common import load_model
from _common import parser as common_parser
from collaborative_accuracy import DS_CLUSTERING_TUNED, DS_PRUNING, DS_TUNING, keyword_trials

from keras_mot.quantization import INT8, quantize_post_training

EQUAL = dataclasses.replace(DS_TUNING, epochs=DS_TUNING.epochs + DS_PRUNING.epochs + DS_CLUSTERING_TUNED.epochs)
RECIPES = {"equal": EQUAL, "tuning": DS_TUNING, "pruning": DS_PRUNING, "clustering": DS_CLUSTERING_TUNED}
VALUES, SPARSITY, ENTROPY_WEIGHT = 16, 0.5, 0.02


def trained(trial, number, folder, quick):
    """The models of a part of the speakers by their names: floats, and what is quantized for microcontrollers."""
    recipes = {name: dataclasses.replace(each, epochs=1) if quick else each for name, each in RECIPES.items()}
    kept = Kept(folder, number)
    models = {}
    models["float, trained for as long"] = kept.get(
        "float", lambda: trial.trained(trial.plain(), recipes["equal"], number)
    )
    tuned = kept.get("tuned", lambda: trial.trained(trial.plain(), recipes["tuning"], number))
    trial = trial.taught_by(tuned)

    def in_integers(model):
        return quantize_post_training(model, INT8, trial.calibration, target="micro")

    def both():
        pruned, seconds = trial.pruned(SPARSITY, recipes["pruning"], number)
        return clustered(pruned, seconds)

    def clustered(model, seconds=0.0):
        found, more = trial.clustered(model, VALUES, recipes["clustering"], number, entropy_weight=ENTROPY_WEIGHT)
        return in_integers(found), seconds + more

    models[f"{SPARSITY:.0%} zeros and {VALUES} values"] = kept.get("both", both)
    models[f"{VALUES} values"] = kept.get("clustered", lambda: clustered(tuned))
    models["int8"] = kept.get("int8", lambda: (in_integers(tuned), 0.0))
    return models


class Kept:
    """Models of a part of the speakers in a folder, or made and put there; without a folder, made."""

    def __init__(self, folder, number):
        self._folder, self._number = folder, number
        self.seconds = {}

    def get(self, name, make):
        path = None if self._folder is None else self._folder / f"ds_cnn_l_{self._number}_{name}.keras"
        if path is not None and path.is_file():
            return keras.models.load_model(path, compile=False)
        started = time.perf_counter()
        model, seconds = make()
        print(f"--- {name}: {time.perf_counter() - started:.0f} s, of which fit {seconds:.0f}", flush=True)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            model.save(path)
        return model


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--models", type=pathlib.Path, help="folder to keep trained models in, and to take them from")
    parser.add_argument("--parts", type=int, nargs="+", default=[0, 1, 2], help="of the three parts of the speakers")
    arguments = parser.parse_args()
    for number, trial in keyword_trials(load_model("kws/ds_cnn_l.keras"), arguments.quick):
        if number not in arguments.parts:
            continue
        trained(trial, number, arguments.models, arguments.quick)


if __name__ == "__main__":
    main()
