"""N + N steps with saving and loading between, against 2N steps without: the same masks, the same weights.

python benchmarks/resume.py --backends tensorflow jax torch
"""

import pathlib
import sys
import tempfile

import numpy as np
from _common import (
    BACKENDS,
    Table,
    cifar10,
    compile_classifier,
    environment,
    load_model,
    mnist,
    run_child,
    send_result,
    write_results,
)
from _common import parser as common_parser

BATCH = 128
TOLERANCE = 1e-5
MODELS = ("mnist", "resnet8")


def start_model(name):
    """The model to start from; without dropout, whose random state Keras does not bring back on loading."""
    import keras

    if name == "resnet8":
        return load_model("cifar10/resnet8_jpegft.keras")
    model = load_model("mnist/mnist_cnn.keras")
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.Dropout)]
    return keras.Sequential([keras.Input(model.input_shape[1:]), *layers])


def pruned(model, steps, scope):
    import keras

    import keras_mot

    sparsity = keras_mot.sparsity
    schedule = sparsity.PolynomialDecay(0.3, 0.9, begin_step=0, end_step=int(1.6 * steps), frequency=7)
    model = sparsity.prune_low_magnitude(
        model, schedule, scope=sparsity.WholeModel() if scope == "whole-model" else sparsity.PerLayer()
    )
    compile_classifier(model, keras.optimizers.schedules.CosineDecay(1e-3, 2 * steps))
    return model


def fit(model, x, y):
    model.fit(x, y, batch_size=BATCH, epochs=1, shuffle=False, verbose=0)
    return model


def snapshot(model):
    """Masks and weights (what else the model stores included), as NumPy arrays."""
    import keras

    from keras_mot.layers import transformed_weights
    from keras_mot.transforms import Mask

    masks = [weight.transform_of(Mask).mask for weight in transformed_weights(model)]
    ids = {id(mask) for mask in masks}
    others = [weight for weight in model.weights if id(weight) not in ids]
    return tuple([keras.ops.convert_to_numpy(item) for item in part] for part in (masks, others))


def difference(first, second):
    """(mask entries that differ, largest absolute difference of weights)."""
    masks = sum(int((a != b).sum()) for a, b in zip(first[0], second[0], strict=True))
    weights = max(float(np.abs(a - b).max()) for a, b in zip(first[1], second[1], strict=True))
    return masks, weights


def child(arguments):
    """The comparison for one backend, model and scope, in this process."""
    import keras

    import keras_mot

    name, scope = arguments.child.split("/")
    keras.utils.set_random_seed(0)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    steps = arguments.steps
    x, y = mnist()[0] if name == "mnist" else cifar10("test")
    order = np.random.RandomState(1).permutation(len(x))[: 2 * steps * BATCH]
    x, y, half = x[order], y[order], steps * BATCH
    base = start_model(name)
    whole = fit(pruned(base, steps, scope), x, y)
    again = fit(pruned(base, steps, scope), x, y)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "middle.keras"
        fit(pruned(base, steps, scope), x[:half], y[:half]).save(path)
        resumed = fit(keras.models.load_model(path), x[half:], y[half:])
    sparsity = keras_mot.sparsity.pruning_report(whole).sparsity
    if not snapshot(whole)[0]:
        raise SystemExit("There are no masks to compare.")
    masks, weights = difference(snapshot(whole), snapshot(resumed))
    repeated_masks, repeated_weights = difference(snapshot(whole), snapshot(again))
    send_result(
        {
            "sparsity": sparsity,
            "masks_compared": len(snapshot(whole)[0]),
            "mask_entries": int(sum(mask.size for mask in snapshot(whole)[0])),
            "different_mask_entries": masks,
            "largest_weight_difference": weights,
            "repeated_different_mask_entries": repeated_masks,
            "repeated_largest_weight_difference": repeated_weights,
        }
    )


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--scopes", nargs="+", default=["per-layer", "whole-model"])
    parser.add_argument("--steps", type=int, default=30, help="N: steps before saving, and after loading")
    parser.add_argument("--child", help="used by the command itself")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps = min(arguments.steps, 8)
    if arguments.child:
        return child(arguments)
    table = Table(
        f"{arguments.steps} steps, save, load, {arguments.steps} steps, against {2 * arguments.steps} steps",
        (
            "backend, model, scope",
            "different mask entries",
            "of",
            "largest weight difference",
            "the same, 2N run twice",
            "holds",
        ),
        notes=("Targets: no mask entry differs, weights within 1e-5. The order of samples is fixed; no dropout.",),
    )
    runs = []
    for backend in arguments.backends:
        for name in arguments.models:
            for scope in arguments.scopes:
                print(f"--- {backend}, {name}, {scope}", flush=True)
                options = ["--child", f"{name}/{scope}", "--steps", arguments.steps]
                run = {
                    "backend": backend,
                    "model": name,
                    "scope": scope,
                    **run_child(__file__, options, backend),
                }
                masks, weights = run["different_mask_entries"], run["largest_weight_difference"]
                run["holds"] = masks == 0 and weights <= TOLERANCE
                twice = run["repeated_different_mask_entries"], run["repeated_largest_weight_difference"]
                runs.append(run)
                table.add(
                    f"{backend}, {name}, {scope}",
                    masks,
                    f"{run['mask_entries']:,}",
                    f"{weights:.1e}",
                    f"{twice[0]} masks, {twice[1]:.1e}",
                    "yes" if run["holds"] else "NO",
                )
    values = {
        "environment": environment("one process each"),
        "steps": arguments.steps,
        "batch": BATCH,
        "runs": runs,
    }
    write_results(arguments, "resume", values, [table])
    return 0 if all(run["holds"] for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
