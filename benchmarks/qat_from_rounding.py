"""Quantization-aware training that starts from a model whose weights were rounded by data: accuracy before and after.

KERAS_BACKEND=tensorflow python benchmarks/qat_from_rounding.py

ResNet-8 with few bits in all kernels: `quantize_post_training`, then `compile` and `fit` on a part of the training
images, shifted and flipped, with the float model's probabilities as labels. Each row is written as soon as it is
measured; what was measured before is kept, unless `--again`.
"""

import dataclasses
import json
import pathlib
import time

import keras
import numpy as np
from _common import Table, environment, write_results
from _common import parser as common_parser
from _training import Augmented, Recipe, cut, soft_cross_entropy
from quantization_accuracy import resnet8_task

from keras_mot._arrays import numpy_value
from keras_mot.layers import transformed_weights
from keras_mot.quantization import GPTQ, AdaRound, Nearest, QuantizationScheme, quantize_model, quantize_post_training
from keras_mot.transforms import FakeQuantize

NAME = "qat_from_rounding_resnet8"
ROUNDINGS = {"nearest": Nearest(), "GPTQ": GPTQ(), "AdaRound": AdaRound()}
CALIBRATION = 512
ASKED = 0.5  # points below float with 4 bits, at most


def integers_of(model):
    """All integers of a quantized model, in one array."""
    found = []
    for weight in transformed_weights(model):
        transform = weight.transform_of(FakeQuantize)
        found.append(transform.integers(numpy_value(weight.value_before(transform)))[0].ravel())
    return np.concatenate(found)


def accuracy(model, samples):
    """In percent, of the Keras simulation."""
    x, y = samples
    return 100.0 * float(np.mean(model.predict(x, batch_size=200, verbose=0).argmax(-1) == y))


def measured(task, key):
    """Adds to a key what was measured for it."""
    x, y = task.train
    keras.utils.set_random_seed(key["seed"])
    generator = np.random.default_rng(key["seed"])
    calibration = x[generator.permutation(len(y))[:CALIBRATION]]
    scheme = QuantizationScheme(key["bits"], rounding=ROUNDINGS[key["rounding"]])
    if key["batch_norm"] == "folded":
        model = quantize_post_training(task.model, scheme, calibration, progress=False)
    else:
        model = quantize_model(task.model, scheme, calibration_data=calibration, progress=False)
    row = {**key, "before": accuracy(model, task.test)}
    integers = integers_of(model)
    chosen = generator.permutation(len(y))[: key["images"]]
    recipe = Recipe(key["epochs"], key["learning_rate"])
    data = Augmented(x[chosen], y[chosen], key["seed"], recipe, teacher=task.model, **task.augmentation)
    rate = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, recipe.epochs * len(data))
    options = {"jit_compile": False} if keras.backend.backend() == "tensorflow" else {}
    model.compile(keras.optimizers.Adam(rate), soft_cross_entropy(1.0, from_logits=False), **options)
    started, cpu = time.perf_counter(), time.process_time()
    losses = model.fit(data, epochs=recipe.epochs, verbose=0).history["loss"]
    row |= {"fit_seconds": time.perf_counter() - started, "fit_cpu_seconds": time.process_time() - cpu}
    row |= {"losses": losses, "after": accuracy(model, task.test), "tested": len(task.test[1])}
    return {**row, "moved": float(np.mean(integers_of(model) != integers))}


def table_of(rows, base):
    table = Table(
        f"ResNet-8, points below the float model ({base:.2f} %), all kernels in few bits",
        ("rounding", "bits", "batch norm", "rate", "images x epochs", "seeds", "before", "after", "moved", "CPU s"),
        notes=(
            f"Asked with 4 bits, after training: at most {ASKED}. Behind ±, the spread over seeds. Moved: share of the "
            "integers that training has changed.",
        ),
    )
    names = ("bits", "batch_norm", "rounding", "learning_rate", "images", "epochs")
    for group in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        own = [row for row in rows if tuple(row[name] for name in names) == group]
        bits, batch_norm, rounding, learning_rate, images, epochs = group
        drops = [[base - row[name] for row in own] for name in ("before", "after")]
        cells = [f"{np.mean(each):.2f}" + (f" ± {np.std(each, ddof=1):.2f}" if len(own) > 1 else "") for each in drops]
        moved, seconds = (np.mean([row[name] for row in own]) for name in ("moved", "fit_cpu_seconds"))
        size = f"{images:,} x {epochs}"
        table.add(rounding, bits, batch_norm, learning_rate, size, len(own), *cells, f"{moved:.1%}", f"{seconds:.0f}")
    return table


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--bits", type=int, nargs="+", default=[4])
    parser.add_argument("--roundings", nargs="+", choices=ROUNDINGS, default=list(ROUNDINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=int, default=12_800, help="of those to train on, in each epoch")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="at the start; it falls by a cosine")
    parser.add_argument(
        "--batch-norm", choices=("folded", "trained"), default="folded", help="trained: `quantize_model` to begin with"
    )
    parser.add_argument("--again", action="store_true", help="measure again what was measured before")
    arguments = parser.parse_args()
    task = resnet8_task()
    if arguments.quick:
        arguments.images, arguments.epochs, arguments.seeds = 256, 1, arguments.seeds[:1]
        task = dataclasses.replace(task, test=cut(task.test, 200))
    path = (arguments.output or pathlib.Path(__file__).parent / "results") / f"{NAME}.json"
    keep = path.exists() and not arguments.again and not arguments.quick
    known = json.loads(path.read_text()) if keep else {"float": accuracy(task.model, task.test), "rows": []}
    base, rows = known["float"], known["rows"]
    for seed in arguments.seeds:
        for bits in arguments.bits:
            for rounding in arguments.roundings:
                key = {"bits": bits, "rounding": rounding, "batch_norm": arguments.batch_norm, "seed": seed}
                key |= {name: getattr(arguments, name) for name in ("images", "epochs", "learning_rate")}
                if any(key.items() <= row.items() for row in rows):
                    continue
                rows.append(measured(task, key))
                print(rows[-1], flush=True)
                keras.backend.clear_session()
                values = {"environment": environment(), "float": base, "rows": rows}
                write_results(arguments, NAME, values, [table_of(rows, base)])


if __name__ == "__main__":
    main()
