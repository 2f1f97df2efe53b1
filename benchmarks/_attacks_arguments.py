"""Bad arguments to public functions: wrong types, shapes and numbers, empty data, NaN, symbolic tensors."""

import pathlib

import numpy as np
from _attacks_common import called, tiny_model


def bad_arguments(scratch, seed):
    """Some 150 calls; each is refused with a `TypeError` or `ValueError` that says something."""
    model = tiny_model()
    generator = np.random.default_rng(seed)
    x, y = generator.random((16, 8, 8, 3), "float32"), generator.integers(0, 4, 16)
    groups = (
        _pruning(model, x),
        _clustering(model, x),
        _quantization(model, x),
        _export(model, x, scratch),
        _analysis(model, x, y),
        _recipes(model, x, y, scratch),
        _rooms_below(model, x),
    )
    for function, calls in (pair for group in groups for pair in group):
        for arguments, options in calls:
            problem = called(lambda f=function, a=arguments, o=options: f(*a, **o))
            yield f"{function.__name__}({_shown(arguments, options)})", problem


def _call(*arguments, **options):
    return arguments, options


def _shown(arguments, options):
    parts = [_short(value) for value in arguments] + [f"{name}={_short(value)}" for name, value in options.items()]
    return ", ".join(parts)


def _short(value):
    if isinstance(value, np.ndarray):
        return f"array{value.shape} of {value.dtype}"
    if isinstance(value, tuple | list) and any(isinstance(item, np.ndarray) for item in value):
        return f"({', '.join(map(_short, value))})"
    text = getattr(value, "name", None) if type(value).__module__.startswith("keras") else None
    return (text or repr(value))[:60]


def _pruning(model, x):
    import keras

    from keras_mot import sparsity

    half = sparsity.ConstantSparsity(0.5)
    yield (
        sparsity.prune_low_magnitude,
        [
            *[_call(wrong, half) for wrong in (None, 3, "model", x, [], keras.Input((3,)))],
            *[_call(model, wrong) for wrong in (0.5, "half", x)],
            *[_call(model, half, wrong) for wrong in (3, (0, 1), (-1, 2), ("a", "b"), (1, 2, 3), (1.5, 1))],
            *[_call(model, half, (1, 1), wrong) for wrong in ("SUM", 3)],
        ],
    )
    yield (
        sparsity.PolynomialDecay,
        [
            *[_call(wrong, 0.5, 0, 10) for wrong in (-0.1, float("nan"), "a", None)],
            *[_call(0.0, wrong, 0, 10) for wrong in (1.5, x)],
            _call(0.0, 0.5, -1, 10),
            _call(0.0, 0.5, 10, 5),
            _call(0.0, 0.5, 0, 10, frequency=0),
        ],
    )
    yield sparsity.ConstantSparsity, [_call(wrong) for wrong in (-1, float("nan"), None, x, "0.5")]
    yield sparsity.NofM, [_call(5, 4), _call("a", 4), _call(2, 0)]
    yield sparsity.strip_pruning, [_call(wrong) for wrong in (None, x)]


def _clustering(model, x):
    import keras

    from keras_mot import clustering

    yield (
        clustering.cluster_weights,
        [
            *[_call(model, wrong) for wrong in (0, -3, 2.5, "16", None, float("nan"), x)],
            *[_call(wrong, 4) for wrong in (None, x, keras.Input((3,)))],
            *[_call(model, 4, wrong) for wrong in (3, "nothing")],
        ],
    )
    yield clustering.ClusteringConfig, [_call(wrong) for wrong in (0, "a", None)]


def _quantization(model, x):
    import keras

    from keras_mot import quantization

    yield (
        quantization.quantize_post_training,
        [
            *[_call(wrong, calibration_data=x) for wrong in (None, x, keras.Input((3,)))],
            *[_call(model, wrong, x) for wrong in ("int8", 8)],
            *[
                _call(model, calibration_data=wrong)
                for wrong in (None, 3, x[:0], x[:, :4], x + np.nan, x.astype(str), (x, x[:3]), keras.Input((8, 8, 3)))
            ],
        ],
    )
    yield quantization.quantize_model, [_call(wrong, calibration_data=x) for wrong in (None, 3, "model")]
    yield (
        quantization.QuantizationScheme,
        [*[_call(wrong) for wrong in (0, 1.5, "8", -8)], *[_call(8, wrong) for wrong in (7, "8")]],
    )


def _export(model, x, scratch):
    from keras_mot import export

    path = scratch / "model.tflite"
    options = (
        *[{"weights": wrong} for wrong in ("int3", 8)],
        *[{"batch_size": wrong} for wrong in (0, -1, 1.5, "a")],
        *[{"tolerance": wrong} for wrong in (-1, float("nan"), "a")],
        *[{"verification_data": wrong} for wrong in (x[:, :4], x + np.nan, x[:0], x.astype(str))],
        {"sparse_encoding": "yes"},
        {"input_type": "float64"},
    )
    yield (
        export.export_litert,
        [
            *[_call(wrong, path) for wrong in (None, x)],
            *[_call(model, wrong) for wrong in (3, None, scratch, scratch / "nowhere" / "model.tflite")],
            *[_call(model, path, **option) for option in options],
        ],
    )
    yield (
        export.LiteRTRunner,
        [_call(wrong) for wrong in (None, 3, b"", b"1234TFL3" + bytes(100), pathlib.Path("nowhere"))],
    )


def _analysis(model, x, y):
    from keras_mot import analysis

    data = ((x,), (x, y[:3]), (x + np.nan, y), (x[:0], y[:0]), 3, (x, y, y, y))
    options = (
        *[{"data": wrong} for wrong in data],
        *[{"data": (x, y), "metric": wrong} for wrong in ("nothing", 3)],
        *[{"batch_size": wrong} for wrong in (0, 1.5, "a")],
        {"latency_runs": -1},
        {"num_threads": 0},
    )
    yield (
        analysis.measure,
        [
            *[_call(*wrong) for wrong in ((), (None,), (3,), (x,), ({},))],
            *[_call(model, progress=False, **option) for option in options],
        ],
    )
    yield analysis.tensor_stats, [_call(wrong) for wrong in (None, x, "nowhere.keras")]


def _recipes(model, x, y, scratch):
    from keras_mot import recipes

    file = scratch / "a_file"
    file.write_text("no folder")
    yield (
        recipes.compress,
        [
            _call(None, "int8", (x, y)),
            *[_call(model, wrong, (x, y)) for wrong in (None, "nothing", 3)],
            *[
                _call(model, "int8", wrong)
                for wrong in (
                    None,
                    (x,),
                    (x, y[:3]),
                    (x[:0], y[:0]),
                    (x + np.nan, y),
                    (x, y.astype(str)),
                    (x[:, :4], y),
                )
            ],
            _call(model, "int8", (x, y), loss="nothing"),
            _call(model, "int8", (x, y), metric="nothing"),
            _call(model, "int8", (x, y), output_dir=file),
        ],
    )
    yield recipes.Recipe, [_call(wrong) for wrong in ([], "prune", [3])]
    yield recipes.FineTune, [_call(-1), _call(1, float("nan")), _call(1, 0.1, "nothing")]


def _rooms_below(model, x):
    from keras_mot import graph, layers, transforms

    yield graph.flatten, [_call(wrong) for wrong in (None, x)]
    yield graph.rewrite, [_call(model, 3)]
    yield layers.copy_model, [_call(wrong) for wrong in (None, x)]
    yield layers.register_weights, [_call("Dense", ["kernel"])]
    yield transforms.Codebook, [_call(wrong) for wrong in (0, "a")]
    yield transforms.FakeQuantize, [_call(wrong) for wrong in (0, "a")]
