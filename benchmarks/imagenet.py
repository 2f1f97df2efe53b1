"""Runs the rows of the tables that TFMOT publishes on ImageNet, and prints top-1 beside the published figures.

KERAS_BACKEND=tensorflow python benchmarks/imagenet.py --data DIR --model MobileNet --runs prune-50 cluster-32 int8 qat
KERAS_BACKEND=jax python benchmarks/imagenet.py --data DIR --model InceptionV3 --runs prune-50 prune-75 prune-87.5

DIR holds ImageNet as TFRecord shards (`train-...` and `validation-...`) or as folders of classes. A run is stages
joined by `+`: `prune-50` (per cent of zeros), `prune-2:4`, `cluster-32`, `cluster-last3-16` (the last three
convolutions), `cluster-channels-16`, `int8` (after training), `qat`. Finished stages are kept in `--work`, and are not
done again. All devices of the machine are used: by `tf.distribute.MirroredStrategy` on TensorFlow, by
`keras.distribution.DataParallel` on JAX.

The numbers of epochs and the learning rates are our choice for models that are trained already; TFMOT publishes none.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import sys
import time

from _common import Table, environment, parser, write_results
from _imagenet_data import Reader, affine, check_labels, find
from _published import SOURCES, published

RUNS = ("prune-50", "prune-75", "prune-87.5", "cluster-16", "cluster-32", "cluster-64", "int8", "qat")
STAGE = re.compile(
    r"(?:prune-(?P<sparsity>\d+(?:\.\d+)?|2:4)|cluster-(?P<where>last3-|channels-)?(?P<values>\d+)|int8|qat)"
)


@dataclasses.dataclass(frozen=True)
class Training:
    """How a kind of stage is trained: epochs, and the learning rate that falls to 0 along a cosine.

    The rate is that of a batch of 256 images; for others it is in proportion.
    """

    epochs: float
    learning_rate: float


TRAININGS = {"prune": Training(12, 0.01), "cluster": Training(3, 0.001), "qat": Training(3, 0.0005)}
PRUNING_SHARE = 0.6  # of the steps; the others are for recovery
FREQUENCY = 100


def arguments_of(words=None):
    result = parser(__doc__.splitlines()[0])
    result.add_argument("--data", type=pathlib.Path, required=True, metavar="DIR", help="the folder of ImageNet")
    result.add_argument("--model", default="MobileNet", help="a model of Keras Applications")
    result.add_argument(
        "--weights",
        default="imagenet",
        metavar="imagenet|none|FILE",
        help="FILE: weights, or a whole model as .keras, that takes images as --model does",
    )
    result.add_argument("--runs", nargs="+", default=list(RUNS), metavar="RUN", help="stages, joined by +")
    result.add_argument("--work", type=pathlib.Path, metavar="DIR", help="default: imagenet-runs/MODEL")
    result.add_argument("--batch-size", type=int, default=256, help="over all devices")
    result.add_argument("--epochs", type=float, help="of each stage, instead of its own")
    result.add_argument("--learning-rate", type=float, help="of each stage, instead of its own")
    result.add_argument("--steps", type=int, help="of each stage, instead of epochs")
    result.add_argument("--images", type=int, help="how many validation images, of the first; default: all")
    result.add_argument(
        "--runtime-images", type=int, default=5000, help="how many are run through the .tflite file; 0: none"
    )
    result.add_argument("--calibration", type=int, default=512, help="training images that ranges are taken from")
    result.add_argument("--crop", type=float, default=0.875, help="share of the shorter side that validation cuts out")
    result.add_argument("--first-label", type=int, default=1, help="number of the first class in image/class/label")
    result.add_argument("--devices", type=int, help="make so many of the processor, where there is no accelerator")
    result.add_argument("--seed", type=int, default=0)
    arguments = result.parse_args(words)
    if arguments.quick:
        arguments.steps, arguments.calibration = arguments.steps or 2, min(arguments.calibration, 32)
        arguments.images, arguments.runtime_images = arguments.images or 64, min(arguments.runtime_images, 32)
    for run in arguments.runs:
        try:
            stages_of(run)
        except ValueError as error:
            result.error(str(error))
    return arguments


def stages_of(run):
    """The stages of a run, checked: each a match of `STAGE`."""
    stages = [STAGE.fullmatch(word) for word in run.split("+")]
    for word, stage in zip(run.split("+"), stages, strict=True):
        if stage is None:
            raise ValueError(
                f"'{word}' in the run '{run}' is no stage: prune-50, prune-2:4, cluster-32, cluster-last3-16, "
                "cluster-channels-16, int8 or qat."
            )
        if stage["sparsity"] and stage["sparsity"] != "2:4" and not 0 < float(stage["sparsity"]) < 100:
            raise ValueError(f"'{word}': the zeros should be between 0 and 100 %.")
        if stage["values"] and int(stage["values"]) < 2:
            raise ValueError(f"'{word}': at least 2 values.")
    kinds = [kind_of(stage) for stage in stages]
    order = {"prune": 0, "cluster": 1, "int8": 2, "qat": 2}
    places = [order[kind] for kind in kinds]
    if sorted(set(places)) != places:
        raise ValueError(f"The run '{run}' should prune, cluster and quantize once at most, in this order.")
    return stages


def kind_of(stage):
    return stage[0].split("-")[0]


class Devices:
    """The devices of the machine, and the scope that models are made in."""

    def __init__(self, count=None):
        import keras

        self.backend, self.strategy = keras.backend.backend(), None
        if self.backend == "tensorflow":
            import tensorflow as tf

            if count and not tf.config.list_physical_devices("GPU"):
                cpu = tf.config.list_physical_devices("CPU")[0]
                tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
            devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
            self.count = len(devices)
            if self.count > 1:
                self.strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
        elif self.backend == "jax":
            devices = keras.distribution.list_devices()
            self.count = len(devices)
            if self.count > 1:
                keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
        else:
            self.count = 1

    def scope(self):
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def __str__(self):
        how = {"tensorflow": "tf.distribute.MirroredStrategy", "jax": "keras.distribution.DataParallel"}
        return f"{self.count} devices, {how[self.backend]}" if self.count > 1 else "1 device"


def first_model(arguments):
    """The float model to start from."""
    import keras

    if arguments.weights.endswith(".keras"):
        return keras.models.load_model(arguments.weights, compile=False)
    make = getattr(keras.applications, arguments.model)
    model = make(weights="imagenet" if arguments.weights == "imagenet" else None)
    if arguments.weights not in ("imagenet", "none"):
        model.load_weights(arguments.weights)
    return model


def preprocessing(name):
    """`preprocess_input` of a model of Keras Applications."""
    import keras

    make = getattr(keras.applications, name, None)
    for room in vars(keras.applications).values():
        if make is not None and getattr(room, name, None) is make and hasattr(room, "preprocess_input"):
            return room.preprocess_input
    known = sorted(each for each, value in vars(keras.applications).items() if each[0].isupper() and callable(value))
    sys.exit(f"Keras Applications has no model '{name}': {', '.join(known)}.")


def returns_logits(model):
    """Whether the last layer of a classifier leaves out softmax."""
    import keras

    last = model.layers[-1]
    return not (
        isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax
    )


def compiled(model, steps, rate, from_logits):
    """Compiles for integer labels; SGD, with a rate that falls to 0."""
    import keras

    decay = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(
        keras.optimizers.SGD(decay, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="top1")],
    )
    return model


def transformed(model, stage, steps, calibration):
    """The model with what the stage attaches to it."""
    from keras_mot import clustering, quantization, sparsity

    if stage[0] == "int8":
        return quantization.quantize_post_training(model, calibration_data=calibration)
    if stage[0] == "qat":
        return quantization.quantize_model(model, calibration_data=calibration)
    if stage["values"]:
        settings = clustering.ClusteringConfig(int(stage["values"]), per_channel=stage["where"] == "channels-")
        overrides = {not_among(last_convolutions(model, 3)): None} if stage["where"] == "last3-" else None
        return clustering.cluster_weights(model, settings, overrides=overrides)
    if stage["sparsity"] == "2:4":
        schedule = sparsity.ConstantSparsity(0.5, 0, end_step=max(1, int(PRUNING_SHARE * steps)), frequency=FREQUENCY)
        return sparsity.prune_low_magnitude(model, schedule, granularity=sparsity.NofM(2, 4, fill=True))
    end = max(1, int(PRUNING_SHARE * steps))
    schedule = sparsity.PolynomialDecay(0.0, float(stage["sparsity"]) / 100, 0, end, frequency=min(FREQUENCY, end))
    return sparsity.prune_low_magnitude(model, schedule)


def last_convolutions(model, count):
    """The last layers that are `Conv2D`, depthwise ones not among them."""
    import keras

    kinds = keras.layers.Conv2D
    found = [layer for layer in model._flatten_layers(include_self=False) if type(layer) is kinds]
    return found[-count:]


def not_among(layers):
    """A selector of all layers with weights but these, by name: the technique sees copies."""
    names = {layer.name for layer in layers}
    return lambda layer: not layer.__dict__.get("_layers") and layer.name not in names


class Work:
    """The folder of finished stages: models, and what was measured of them."""

    def __init__(self, folder, settings):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / "settings.json"
        if kept.is_file() and json.loads(kept.read_text()) != settings:
            sys.exit(f"{folder} holds runs of other settings, {kept.read_text().strip()}: name another --work.")
        kept.write_text(json.dumps(settings) + "\n")

    def path(self, run, ending):
        return self.folder / f"{run.replace(':', 'of').replace('+', '_')}{ending}"

    def measured(self, run):
        """What was measured of a run, or `None`."""
        path = self.path(run, ".json")
        return json.loads(path.read_text()) if path.is_file() else None

    def keep(self, run, values):
        path = self.path(run, ".json")
        path.with_suffix(".part").write_text(json.dumps(values, indent=1, default=float) + "\n")
        path.with_suffix(".part").replace(path)


@dataclasses.dataclass
class Bench:
    """What all runs share."""

    arguments: object
    devices: Devices
    reader: Reader
    training: object
    validation: object
    work: Work
    from_logits: bool = False

    @functools.cached_property
    def calibration(self):
        return self.reader.calibration(self.training, self.arguments.calibration)

    def model_of(self, stages):
        """The model after these stages, made from the one before the last unless its file is there; and seconds."""
        import keras

        run = "+".join(stage[0] for stage in stages) or "float"
        path = self.work.path(run, ".keras")
        if path.is_file():
            return keras.models.load_model(path, compile=False), 0.0
        before, _ = self.model_of(stages[:-1]) if stages else (None, 0.0)
        started = time.perf_counter()
        keras.utils.set_random_seed(self.arguments.seed)
        model = self.made(before, stages[-1]) if stages else first_model(self.arguments)
        model.save(path.with_suffix(".part.keras"))
        path.with_suffix(".part.keras").replace(path)
        return model, time.perf_counter() - started

    def made(self, model, stage):
        """The model with the stage done."""
        if stage[0] == "int8":
            return transformed(model, stage, 0, self.calibration)
        settings = TRAININGS[kind_of(stage)]
        in_epoch = max(1, self.training.count // self.reader.batch_size)
        epochs = self.arguments.epochs or settings.epochs
        wanted = self.arguments.steps or max(1, round(epochs * in_epoch))
        rounds = max(1, round(wanted / in_epoch))
        in_round = -(-wanted // rounds)
        steps = rounds * in_round
        rate = (self.arguments.learning_rate or settings.learning_rate) * self.reader.batch_size / 256
        calibration = self.calibration if stage[0] == "qat" else None
        with self.devices.scope():
            model = compiled(transformed(model, stage, steps, calibration), steps, rate, self.from_logits)
        data = self.reader.training(self.training)
        model.fit(data, steps_per_epoch=in_round, epochs=rounds, shuffle=False, verbose=2)
        return model

    def measure(self, run):
        """Top-1 in Keras over the validation images, and of the file in the runtime."""
        kept = self.work.measured(run)
        if kept:
            print(f"{run}: done already", flush=True)
            return kept
        print(f"--- {run}", flush=True)
        model, seconds = self.model_of([] if run == "float" else stages_of(run))
        with self.devices.scope():
            compiled(model, 1, 0.0, self.from_logits)
        images = min(self.validation.count, self.arguments.images or self.validation.count)
        data, steps = self.reader.validation(self.validation, images), -(-images // self.reader.batch_size)
        values = {"run": run, "seconds": round(seconds, 1), "images": images}
        values["top1"] = model.evaluate(data, steps=steps, verbose=0, return_dict=True)["top1"]
        values |= self.file(model, run, images)
        self.work.keep(run, values)
        return values

    def file(self, model, run, images):
        """Bytes, zipped bytes and top-1 of the `.tflite` file, over at most so many images."""
        from keras_mot import layers
        from keras_mot.analysis import zipped_bytes
        from keras_mot.export import LiteRTRunner, export_litert
        from keras_mot.layers.activation_quantizer import is_quantized

        path = self.work.path(run, ".tflite")
        plain = model if is_quantized(model) or run == "float" else layers.strip(model)
        export_litert(plain, path, sparse_encoding=False)
        values = {"bytes": path.stat().st_size, "zipped_bytes": zipped_bytes(path)}
        count = min(self.arguments.runtime_images, images)
        if count:
            runner = LiteRTRunner(path, num_threads=os.cpu_count() or 1)
            right = seen = 0
            for images, labels, weights in self.reader.validation(self.validation, count):
                (outputs,) = runner.run(images.numpy()).values()
                correct = (outputs.argmax(-1) == labels.numpy()) & (weights.numpy() > 0)
                right, seen = right + int(correct.sum()), seen + int(weights.numpy().sum())
            values |= {"runtime_top1": right / seen, "runtime_images": seen}
        return values


def table_of(arguments, rows, devices, split):
    """The rows beside the published figures."""
    start = rows[0]
    headers = (
        "run",
        "top-1, %",
        "in the runtime, %",
        "points lost",
        "published: top-1, %",
        "points lost",
        ".tflite bytes",
        "zipped",
    )
    notes = [
        f"{start['images']} validation images; {start.get('runtime_images', 0)} of them in the runtime. {split}",
        f"Published: {SOURCES['pruning']} and the pages beside it. {devices}.",
        "Lost: against the float model, in Keras.",
    ]
    table = Table(f"{arguments.model}, ImageNet", headers, notes=tuple(notes))
    for row in rows:
        known = published(arguments.model, row["run"])
        table.add(
            row["run"],
            f"{100 * row['top1']:.2f}",
            f"{100 * row['runtime_top1']:.2f}" if "runtime_top1" in row else "",
            "" if row is start else f"{100 * (start['top1'] - row['top1']):.2f}",
            ", ".join(f"{each.published:.2f}" for each in known),
            ", ".join(f"{each.start - each.published:.2f}" for each in known),
            f"{row['bytes']:,}",
            f"{row['zipped_bytes']:,}",
        )
    return table


def main():
    arguments = arguments_of()
    if arguments.devices:  # before any backend starts
        flag = f"--xla_force_host_platform_device_count={arguments.devices}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    training, validation = find(arguments.data)
    matrix, offset = affine(preprocessing(arguments.model))
    devices = Devices(arguments.devices)
    if arguments.batch_size % devices.count:
        sys.exit(f"--batch-size {arguments.batch_size} should be a multiple of the {devices.count} devices.")
    if training.count < arguments.batch_size:
        sys.exit(f"{training.count} training images make no batch of {arguments.batch_size}: --batch-size.")
    settings = {name: getattr(arguments, name) for name in ("model", "weights", "steps", "epochs", "learning_rate")}
    settings |= {name: getattr(arguments, name) for name in ("batch_size", "images", "crop", "calibration", "seed")}
    settings |= {"runtime_images": arguments.runtime_images, "data": str(arguments.data.resolve())}
    work = Work(arguments.work or pathlib.Path("imagenet-runs") / arguments.model, settings)
    bench = Bench(arguments, devices, None, training, validation, work)
    model, _ = bench.model_of([])
    size = model.input_shape[1]
    if not size or model.input_shape[2] != size:
        sys.exit(f"The model takes images of {model.input_shape[1:]}: height and width should be one number.")
    bench.reader = Reader(
        size, matrix, offset, arguments.batch_size, arguments.crop, arguments.seed, arguments.first_label
    )
    for images in (training, validation):
        check_labels(images, bench.reader, model.output_shape[-1])
    bench.from_logits = returns_logits(model)
    del model
    split = f"{training.count} training images."
    rows = []
    for run in dict.fromkeys(["float", *arguments.runs]):
        rows.append(bench.measure(run))
        values = {"environment": environment(), "settings": settings, "rows": rows}
        table = table_of(arguments, rows, devices, split)
    write_results(arguments, f"imagenet_{arguments.model}_{devices.backend}", values, [table])


if __name__ == "__main__":
    main()
