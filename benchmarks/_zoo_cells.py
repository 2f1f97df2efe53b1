"""The cells of the model zoo: each puts one architecture through one technique, and judges what comes out.

Functions here run in a process of their own, forked from one that has imported everything (`_forked.py`).
"""

import contextlib
import dataclasses
import inspect
import os
import pathlib
import resource
import sys
import tempfile
import time
import traceback
import warnings

CELLS = ("prune", "cluster", "channels", "float", "float16", "int8", "qat")
SAMPLES = 16
CALIBRATION = 48
# What reports say of operators in floats: those that follow from others, and those that are there for a purpose.
_FOLLOWS = "its input is computed in floats"
_CHOSEN = ("faster in floats", "by default left in floats")
_FILES = {"float": ("float32", 1e-3), "float16": ("float16", 2e-2)}
_HALVES = 2e-3  # how near a file of halves must be to the model whose weights are halves


def prepare():
    """Imports what all cells need; called once by the process that forks."""
    import keras  # noqa: F401

    import keras_mot  # noqa: F401

    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import tensorflow as tf  # noqa: F401
    import _zoo
    import _zoo_compare  # noqa: F401

    _zoo.load()


def names():
    """(names of all architectures with what the table says of them, missing packages)."""
    import _zoo

    missing = _zoo.load()
    rows = [
        [a.name, a.domain, list(a.traits), list(a.backends), a.quick, a.seconds] for a in _zoo.ARCHITECTURES.values()
    ]
    return [rows, missing]


class Refused(Exception):
    """The library says clearly that it does not do it."""


class Wrong(Exception):
    """What came out is not what was promised."""


class Steps:
    """Seconds of each step, and figures, of a cell."""

    def __init__(self):
        self.seconds, self.figures, self.current = {}, {}, "build"

    @contextlib.contextmanager
    def __call__(self, name):
        self.current = name
        print("step", name, flush=True)
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 2)


def cell(name, kind, options=None):
    """Runs a cell; returns its status, reason, times, memory and figures."""
    import _zoo

    steps, before = Steps(), _resident()
    status, reason, place = "ok", "", ""
    architecture = _zoo.ARCHITECTURES[name]
    try:
        with warnings.catch_warnings(record=True) as caught, tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("always")
            status, reason = _followed(architecture, kind, steps, pathlib.Path(folder), options or {})
            told = [
                str(warning.message) for warning in caught if "keras_mot" in warning.filename or "dB" in str(warning)
            ]
            steps.figures["warnings"] = sorted(set(told))
            _require_warning(steps.figures)
    except Wrong as error:
        status, reason = "wrong", f"{steps.current}: {error}"
    except (Exception, KeyboardInterrupt) as error:
        status, reason, place = _judged(error, steps)
        traceback.print_exc()
    return {
        "status": status,
        "reason": reason[:2000],
        "place": place,
        "seconds": steps.seconds,
        "memory_mib": round(max(0, _peak() - before)),
        "figures": steps.figures,
    }


def _followed(architecture, kind, steps, folder, options):
    """Runs a cell; where the library says to split the model at its lookups, on what is behind them, as a user does."""
    try:
        return _CELLS[kind](architecture, steps, folder, options)
    except ValueError as error:
        if "split_preprocessing" not in str(error):
            raise
    status, reason = _CELLS[kind](_behind_lookups(architecture), steps, folder, options)
    return status, "; ".join(filter(None, ("split at its lookups, as told", reason)))


def _behind_lookups(architecture):
    """The part of an architecture behind its lookups, with what these make of the inputs."""
    from _zoo_compare import tensors
    from keras import ops, tree

    from keras_mot.graph import split_preprocessing

    front, back = split_preprocessing(architecture.build())

    def data(count, generator):
        outputs = front(tensors(architecture.data(count, generator)))
        return tree.map_structure(ops.convert_to_numpy, outputs)

    traits = tuple(trait for trait in architecture.traits if trait != "strings")
    return dataclasses.replace(architecture, function=lambda: back, data=data, traits=traits)


def _judged(error, steps):
    """Whether an error is the library's own word or a crash: by where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{pathlib.Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    ours = bool(frames) and f"{os.sep}keras_mot{os.sep}" in frames[-1].filename
    if steps.current == "build":
        return "not built", f"{type(error).__name__}: {error}", place
    if ours and isinstance(error, (ValueError, TypeError, NotImplementedError, ImportError)):
        return "refused", f"{steps.current}: {error}", place
    if type(error).__name__ == "ExportVerificationError":
        return "refused", f"{steps.current}: verification: {error}", place
    return "wrong", f"{steps.current}: crash: {type(error).__name__}: {error}", place


def _resident():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _start(architecture, steps):
    """(model, inputs, outputs, which outputs are no random numbers)."""
    from _zoo_compare import steady

    with steps("build"):
        model = architecture.build()
        inputs = architecture.inputs(SAMPLES)
        outputs, same = steady(model, inputs)
    import numpy as np

    if not any(same):
        raise ValueError("All outputs are random numbers: nothing to compare.")
    spread = [np.ptp(output, axis=0).max() for output, counts in zip(outputs, same, strict=True) if counts]
    if not max(spread) > 0:
        raise ValueError("The outputs do not depend on the inputs.")
    return model, inputs, outputs, same


def _equal(what, received, expected, same, tolerance=1e-4):
    from _zoo_compare import distance

    off = distance(received, expected, same)
    if not off <= tolerance:
        raise Wrong(f"{what} differs by {off:.2g} of the largest output")


def _technique(apply, strip, callbacks):
    """The cell of pruning or of clustering: apply, train, save, load, strip, each with the outputs it should have."""

    def run(architecture, steps, folder, options):
        from _zoo_compare import predictions

        model, inputs, outputs, same = _start(architecture, steps)
        note = ""
        with steps("apply"):
            try:
                changed = apply(model, inplace=False)
            except ValueError as error:
                if "inplace=True" not in str(error):
                    raise
                note = "in place"
                changed = apply(model, inplace=True)
                changed = model if changed is None else changed
        if callbacks is not None:  # pruning begins with training
            _equal("what is made", predictions(changed, inputs), outputs, same)
        with steps("train"):
            _train(architecture, changed, inputs, outputs, callbacks() if callbacks else [])
        trained = predictions(changed, inputs)
        with steps("save and load"):
            try:
                loaded = _through_a_file(changed, architecture, folder)
            except Exception:
                if _keras_loads(architecture, folder):
                    raise
                loaded = apply(architecture.build(seed=1), inplace=bool(note))
                note = "; ".join(filter(None, (note, "Keras itself cannot load the model: weights alone")))
                changed.save_weights(folder / "changed.weights.h5")
                loaded.load_weights(folder / "changed.weights.h5")
        _equal("what is loaded", predictions(loaded, inputs), trained, same)
        with steps("strip"):
            stripped = strip(loaded)
            stripped = loaded if stripped is None else stripped
        _equal("what is stripped", predictions(stripped, inputs), trained, same)
        with steps("judge"):
            share = _judge(stripped, strip)
        steps.figures["share"] = round(share, 3)
        if not share > 0.4:
            raise Wrong(f"only {share:.0%} of the weights in kernels are as asked")
        return "ok", note

    return run


def _through_a_file(model, architecture, folder):
    import keras

    model.save(folder / "changed.keras")
    return keras.models.load_model(folder / "changed.keras", custom_objects=architecture.custom_objects, compile=False)


def _train(architecture, model, inputs, outputs, callbacks):
    """One epoch of two steps; the loss must be finite."""
    import keras
    import numpy as np
    from _zoo_compare import tensors

    if architecture.train is not None:
        losses = architecture.train(model, inputs, callbacks)
    else:
        own = "added_loss" in architecture.traits and _adds_losses(model, inputs)
        own = own or ("own_step" in architecture.traits and _trains_itself(model))
        options = {} if keras.backend.backend() == "jax" else {"jit_compile": False}
        model.compile(keras.optimizers.SGD(1e-4), None if own else "mse", **options)
        targets = None if own else _targets(model, inputs, outputs)
        data = tensors(inputs) if "strings" in architecture.traits else inputs
        history = model.fit(data, targets, batch_size=8, epochs=1, verbose=0, callbacks=callbacks)
        losses = [value for values in history.history.values() for value in values]
    if not np.isfinite(losses).all():
        raise Wrong(f"the loss is {losses}")


def _adds_losses(model, inputs):
    """Whether layers of a model add losses in their call. Those of a quantized one may not: a warning names them."""
    from _zoo_compare import tensors

    model(tensors(inputs), training=True)
    return bool(model.losses)


def _trains_itself(model):
    """Whether a model trains in a way of its own. One that was quantized may not: then it warns that `compile` says."""
    import keras

    names = ("train_step", "compute_loss")
    return any(getattr(type(model), name) is not getattr(keras.Model, name) for name in names)


def _targets(model, inputs, outputs):
    """What the outputs were, a little different, in the structure in which the model returns them."""
    import keras
    import numpy as np
    from _zoo_compare import tensors

    generator = np.random.default_rng(5)
    noisy = [output + 0.1 * generator.normal(size=output.shape).astype(output.dtype) for output in outputs]
    structure = getattr(model, "output", None) if getattr(model, "inputs", None) else None
    if structure is None:
        structure = model(tensors(keras.tree.map_structure(lambda array: array[:1], inputs)), training=False)
    return keras.tree.pack_sequence_as(structure, noisy)


def _keras_loads(architecture, folder):
    """Whether Keras alone saves and loads the model as it came."""
    import keras
    from _zoo_compare import distance, steady

    model = architecture.build()
    inputs = architecture.inputs(4)
    outputs, same = steady(model, inputs)
    try:
        model.save(folder / "plain.keras")
        loaded = keras.models.load_model(
            folder / "plain.keras", custom_objects=architecture.custom_objects, compile=False
        )
        return distance(steady(loaded, inputs)[0], outputs, same) < 1e-4
    except Exception:
        return False


def _judge(model, strip):
    """The share of the weights in kernels of size that lie in tensors that are as sparse, or have as few values, as
    asked: `strip` tells which."""
    import keras
    import numpy as np

    done = everything = 0
    for variable in model.trainable_variables:
        values = keras.ops.convert_to_numpy(variable)
        if values.ndim < 2 or values.size < 64 or "depthwise" in variable.path:
            continue
        pruned = strip.__name__ == "strip_pruning"
        good = np.mean(values == 0) > 0.45 if pruned else len(np.unique(values)) <= 16 + 1
        done, everything = done + good * values.size, everything + values.size
    return done / everything if everything else 1.0


def _prune(model, inplace):
    from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude

    return prune_low_magnitude(model, ConstantSparsity(0.5, 0, frequency=1), inplace=inplace)


def _cluster(model, inplace):
    from keras_mot.clustering import cluster_weights

    return cluster_weights(model, 16, inplace=inplace)


def _pruning(architecture, steps, folder, options):
    from keras_mot.sparsity import UpdatePruningStep, strip_pruning

    return _technique(_prune, strip_pruning, lambda: [UpdatePruningStep()])(architecture, steps, folder, options)


def _clustering(architecture, steps, folder, options):
    from keras_mot.clustering import strip_clustering

    return _technique(_cluster, strip_clustering, None)(architecture, steps, folder, options)


def _channels(architecture, steps, folder, options):
    """Half of the channels made zero and cut out: a smaller model that computes the same."""
    from _zoo_compare import predictions

    from keras_mot import sparsity

    model, inputs, _, same = _start(architecture, steps)
    with steps("prune"):
        schedule, kept = sparsity.ConstantSparsity(0.5, 0, frequency=1), _last_layers(model)
        pruned = sparsity.prune_low_magnitude(model, schedule, granularity=sparsity.Channel(), overrides=kept)
        sparsity.update_pruning_step(pruned)
        masked = sparsity.strip_pruning(pruned)
    expected = predictions(masked, inputs)
    with steps("cut"):
        small = sparsity.remove_pruned_channels(masked)
    _equal("what is cut", predictions(small, inputs), expected, same)
    steps.figures["removed"] = round(1 - small.count_params() / masked.count_params(), 3)
    return "ok", ""


def _last_layers(model):
    """Overrides that leave alone the layers before the outputs, as the guide says."""
    from keras_mot.sparsity.channels import layers_before_outputs

    try:
        return dict.fromkeys(layers_before_outputs(model))
    except ValueError:
        return None


def _file(kind):
    """The cell of a float file: what it computes beside the model."""

    def run(architecture, steps, folder, options):
        import _zoo_compare as compare
        import keras

        from keras_mot.export import export_litert

        weights, tolerance = _FILES[kind]
        model, inputs, outputs, same = _start(architecture, steps)
        with steps("export"):
            result = export_litert(model, folder / "model.tflite", weights=weights)
        with steps("run"):
            received = keras.tree.flatten(result.run(inputs))
        steps.figures["bytes"] = result.bytes
        off = steps.figures["off"] = compare.distance(received, outputs, same)
        if kind == "float16" and off > tolerance:
            # Such files keep weights as halves and compute in floats: is it the rounding of the weights alone?
            with steps("halves"):
                rounded = compare.predictions(_in_halves(model), inputs)
            _equal("the file, beside the model with weights of halves,", received, rounded, same, _HALVES)
            return "ok", f"{off:.1%} from the float model, as the model itself is with its weights rounded to halves"
        _equal("the file", received, outputs, same, tolerance)
        return "ok", ""

    return run


def _in_halves(model):
    """The model with batch normalization folded, as in files, and each weight rounded to a half."""
    import keras

    from keras_mot.graph import fold_batch_norm

    folded = fold_batch_norm(model)
    for variable in folded.weights:
        values = keras.ops.convert_to_numpy(variable)
        if values.dtype.kind == "f":
            variable.assign(values.astype("float16").astype(values.dtype))
    return folded


def _quantized_options(**options):
    """Those options that this release takes."""
    from keras_mot.quantization import quantize_post_training

    return {key: value for key, value in options.items() if key in inspect.signature(quantize_post_training).parameters}


def _int8(architecture, steps, folder, options):
    """Integers after training, beside the stock converter's."""
    import _zoo_compare as compare
    import keras

    from keras_mot.export import export_litert
    from keras_mot.quantization import quantize_post_training

    model, inputs, outputs, same = _start(architecture, steps)
    calibration = architecture.inputs(CALIBRATION, seed=4)
    with steps("quantize"):
        quantized = quantize_post_training(model, calibration_data=calibration)
    if options.get("files") is False:
        steps.figures["simulated"] = compare.signal_to_noise(compare.predictions(quantized, inputs), outputs, same)
        return "ok", "no file"
    with steps("export"):
        result = export_litert(quantized, folder / "int8.tflite")
    figures = steps.figures
    figures["listed"] = [list(item) for item in result.float_operators][:40]
    figures["floats"] = compare.float_operators(result.path.read_bytes())
    with steps("run"):
        received = keras.tree.flatten(result.run(inputs))
        simulated = compare.predictions(quantized, inputs)
        figures["snr"] = compare.signal_to_noise(received, outputs, same)
        figures["simulated"] = compare.signal_to_noise(simulated, outputs, same)
        figures["file_snr"] = compare.signal_to_noise(received, simulated, same)
        if architecture.decides:
            figures["agreement"] = compare.agreement(received, outputs)
    if keras.backend.backend() == "tensorflow":
        with contextlib.suppress(ValueError), steps("reference"):
            figures["reference_snr"] = _on_reference_kernels(quantized, result, inputs, same)
    if _quantized_options(placement="integer"):
        with steps("integer placement"):
            placed = quantize_post_training(model, calibration_data=calibration, placement="integer")
            placed = export_litert(placed, folder / "integer.tflite", verify=False)
            figures["integer_floats"] = compare.float_operators(placed.path.read_bytes())
            figures["integer_snr"] = compare.signal_to_noise(keras.tree.flatten(placed.run(inputs)), outputs, same)
    if options.get("kept"):
        (pathlib.Path(options["kept"]) / f"{architecture.name}.tflite").write_bytes(result.path.read_bytes())
    _judge_integers(figures)
    listed = result.float_operators
    causes = [item for item in listed if item[2] != _FOLLOWS] or listed
    if all(any(words in item[2] for words in _CHOSEN) for item in causes):
        return "ok", f"{len(listed)} operators in floats by choice" if listed else ""
    return "floats listed", "; ".join(sorted({f"{item[0]}: {item[2]}" for item in causes}))


def _stock(architecture, steps, folder, options):
    """What the stock converter makes of it, beside the file of the cell before: operators in floats, SNR, latency.

    A cell of its own, since that converter may end the process.
    """
    import _zoo_compare as compare

    from keras_mot.export import export_litert

    model, inputs, outputs, same = _start(architecture, steps)
    figures, contents = steps.figures, {}
    ours = pathlib.Path(options["kept"]) / f"{architecture.name}.tflite"
    if ours.exists():
        contents["int8"] = ours.read_bytes()
    with steps("stock"):
        content, how = compare.stock_conversion(model, architecture.inputs(CALIBRATION, seed=4))
    if content is None:
        return "refused", f"stock: {how}"
    figures["stock_floats"] = compare.float_operators(content)
    with steps("run"):
        received = compare.run_content(content, inputs)
        if [item.shape for item in received] == [item.shape for item in outputs]:
            figures["stock_snr"] = compare.signal_to_noise(received, outputs, same)
    contents["stock"] = content
    with contextlib.suppress(Exception), steps("float"):
        export_litert(model, folder / "float.tflite", verify=False)
        contents["float"] = (folder / "float.tflite").read_bytes()
    with contextlib.suppress(RuntimeError, ValueError), steps("latency"):
        figures["latency_ms"] = compare.latencies(contents, inputs)
        figures["latency_clock"] = "thread"
    return "ok", how


def _on_reference_kernels(quantized, result, inputs, same):
    """How near a file on LiteRT's reference kernels is to the simulation that rounds as these do, in dB."""
    import _zoo_compare as compare
    import keras

    from keras_mot.export import LiteRTRunner
    from keras_mot.quantization import freeze_batch_norm, reference_rounding

    with contextlib.suppress(ValueError):  # it has no batch normalization that is trained
        quantized = freeze_batch_norm(quantized)
    with reference_rounding(quantized):
        expected = compare.predictions(quantized, inputs)
    reference = LiteRTRunner(result.path, kernels="reference", input_names=result.input_names)
    outcome = reference.run(keras.tree.flatten(inputs))
    return compare.signal_to_noise([outcome[name] for name in result.output_names], expected, same)


def _judge_integers(figures):
    """A file must compute what was simulated; whether that is of use, `judged_beside_stock` says."""
    closeness, fidelity = figures["file_snr"], figures["simulated"]
    if closeness < min(fidelity, 30.0) and figures.get("reference_snr", closeness) < min(fidelity, 30.0):
        raise Wrong(
            f"the file is {closeness} dB from its simulation, which is {fidelity} dB from the floats "
            f"(on reference kernels {figures.get('reference_snr')} dB)"
        )


def _require_warning(figures):
    """Who gets a model that is of no use is to be told."""
    useless = figures.get("snr", 100.0) < 8.0 and "simulated" in figures
    if useless and not any("dB" in text for text in figures["warnings"]):
        raise Wrong(f"{figures['snr']} dB, and no warning")


def judged_beside_stock(result, stock):
    """The cell of integers with the figures of the stock converter; wrong if it is noise where that one is not."""
    if result["status"] in ("ok", "floats listed"):
        snr, other = result["figures"]["snr"], stock["figures"].get("stock_snr", 0.0)
        if snr < 10.0 and other > snr + 3.0:
            result |= {"status": "wrong", "reason": f"{snr} dB, where the stock converter has {other}"}
    return result


def _qat(architecture, steps, folder, options):
    """Quantization-aware training for two steps, then a file."""
    import _zoo_compare as compare
    import keras

    from keras_mot.export import export_litert
    from keras_mot.quantization import quantize_model

    model, inputs, outputs, same = _start(architecture, steps)
    calibration, note = architecture.inputs(CALIBRATION, seed=4), ""
    with steps("quantize"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quantized = quantize_model(model, calibration_data=calibration)
    told = any("save_weights" in str(warning.message) for warning in caught)
    with steps("train"):
        _train(architecture, quantized, inputs, outputs, [])
    trained = compare.predictions(quantized, inputs)
    with steps("save and load"):
        try:
            loaded = _through_a_file(quantized, architecture, folder)
        except Exception:
            if not told and _keras_loads(architecture, folder):
                raise
            loaded, note = quantized, "Keras itself cannot load the model"
            if told:  # what the warning says to do
                loaded = quantize_model(architecture.build(seed=1), calibration_data=calibration)
                quantized.save_weights(folder / "qat.weights.h5")
                loaded.load_weights(folder / "qat.weights.h5")
                note = "saved by its weights, as told"
    _equal("what is loaded", compare.predictions(loaded, inputs), trained, same, 1e-3)
    if options.get("files") is False:
        return "ok", "no file"
    with steps("export"):
        result = export_litert(quantized, folder / "qat.tflite")
    with steps("run"):
        received = keras.tree.flatten(result.run(inputs))
    steps.figures["file_snr"] = compare.signal_to_noise(received, trained, same)
    steps.figures["snr"] = compare.signal_to_noise(trained, outputs, same)
    least = min(15.0, steps.figures["snr"])
    if steps.figures["file_snr"] < least and keras.backend.backend() == "tensorflow":
        # As in the other cell: a deep network of random weights makes much of the steps that kernels round otherwise.
        with contextlib.suppress(ValueError), steps("reference"):
            steps.figures["reference_snr"] = _on_reference_kernels(quantized, result, inputs, same)
    if steps.figures["file_snr"] < least and steps.figures.get("reference_snr", 0.0) < least:
        raise Wrong(f"the file is {steps.figures['file_snr']} dB from what was trained")
    if result.float_operators:
        note = "; ".join(filter(None, (note, f"{len(result.float_operators)} operators in floats")))
    return "ok", note


_CELLS = {
    "prune": _pruning,
    "cluster": _clustering,
    "channels": _channels,
    "float": _file("float"),
    "float16": _file("float16"),
    "int8": _int8,
    "stock": _stock,
    "qat": _qat,
}

if __name__ == "__main__":  # one cell in this process, to look into: NAME CELL
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
    prepare()
    for key, value in cell(*sys.argv[1:3]).items():
        print(f"{key}: {value}")
