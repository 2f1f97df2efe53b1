"""What rounding by second-order information costs: its time, and the memory that it takes beside the largest H.

python benchmarks/rounding_cost.py --models resnet8 resnet50 --size 64

ResNet50 has random weights: neither time nor memory depends on them. Each measurement is a process of its own.
"""

import time

from _common import BACKENDS, Table, cifar10, environment, load_model, run_child, send_result, write_results
from _common import parser as common_parser
from export_cost import Memory, give_back

SECONDS = {"resnet8": 60.0, "resnet50": 900.0}  # asked at most
BYTES = 1e9  # beside the largest H
# The C library gives back at once what is freed, of a megabyte or more: else arrays that are gone would count.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}
ROUNDINGS = ("Nearest", "GPTQ", "AdaRound")


def resnet8(arguments):
    """The model, and inputs to calibrate on."""
    return load_model("cifar10/resnet8_jpegft.keras"), cifar10("train")[0][: arguments.samples]


def resnet50(arguments):
    """25.6 million weights; images of noise."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    shape = (arguments.size, arguments.size, 3)
    images = np.random.default_rng(0).normal(size=(arguments.samples, *shape)).astype("float32")
    return keras.applications.ResNet50(weights=None, input_shape=shape), images


MODELS = {"resnet8": resnet8, "resnet50": resnet50}


def child(arguments):
    """One rounding, in this process."""
    from keras_mot import quantization
    from keras_mot.quantization import QuantizationScheme, quantize_post_training
    from keras_mot.second_order import matrices_of

    name, rounding = arguments.child
    model, inputs = MODELS[name](arguments)
    rows = max((each.shape[1] for layer in model.layers for each in matrices_of(layer)), default=0)
    scheme = QuantizationScheme(4, rounding=getattr(quantization, rounding)())
    warm_up()
    give_back()
    started = time.perf_counter()
    with Memory() as memory:
        quantize_post_training(model, scheme, inputs, progress=False)
    row = {"model": name, "rounding": rounding, "parameters": model.count_params(), "inputs": list(inputs.shape)}
    row |= {"seconds": time.perf_counter() - started, "rows": rows, "largest": (8 if rows <= 4096 else 4) * rows**2}
    send_result({**row, "more": memory.peak - memory.before})


def warm_up():
    """Loads what any quantization loads."""
    import keras
    import numpy as np

    from keras_mot.quantization import QuantizationScheme, quantize_post_training

    small = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    quantize_post_training(small, QuantizationScheme(4), np.random.default_rng(0).normal(size=(64, 8, 8, 3)))


def table_of(rows):
    table = Table(
        "Quantization with 4-bit weights: time and memory, calibration included",
        ("model", "parameters", "inputs", "rounding", "s", "asked", "MB more", "largest H, MB", "asked"),
        notes=(
            "MB more: resident memory at its peak, beyond that of model and inputs. Freed memory goes back",
            "to the system at once; by default, glibc keeps much of it for later, which then counts, too.",
        ),
    )
    for row in rows:
        memory, asked = row["more"] / 1e6, (row["largest"] + BYTES) / 1e6
        sizes = "x".join(map(str, row["inputs"]))
        table.add(
            *(row["model"], f"{row['parameters']:,}", sizes, row["rounding"], f"{row['seconds']:.0f}"),
            *(f"{SECONDS[row['model']]:.0f}", f"{memory:.0f}", f"{row['largest'] / 1e6:.0f}", f"{asked:.0f}"),
        )
    return table


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--roundings", nargs="+", choices=ROUNDINGS, default=["Nearest", "GPTQ"])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--size", type=int, default=64, help="of ResNet50's images")
    parser.add_argument("--backend", choices=BACKENDS, default="torch")
    parser.add_argument("--child", nargs=2, help="a model and a rounding: one measurement, in this process")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    if arguments.quick:
        arguments.samples = 64
    rows = []
    for name in arguments.models:
        for rounding in arguments.roundings:
            options = ["--child", name, rounding, "--samples", arguments.samples, "--size", arguments.size]
            rows.append(run_child(__file__, options, arguments.backend, extra_environment=MALLOC))
            values = {"environment": environment(arguments.backend), "rows": rows}
            write_results(arguments, f"rounding_cost_{arguments.backend}", values, [table_of(rows)])


if __name__ == "__main__":
    main()
