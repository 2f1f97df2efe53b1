"""What every transform x layer must do, on each backend. A new member joins by adding itself to a list."""

import json
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

import keras_mot
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.layers import WeightAxes, attach, copy_model, find_weights, is_transformed, strip, transformed_weights
from keras_mot.layers.transformed_weight import evaluated_once
from keras_mot.transforms import Codebook, FakeQuantize, Mask, SoftCodebook, WeightTransform
from tests.layers.model_zoo import MODELS, sample_batch


def half_mask(name, shape, axes, rng):
    """A mask over half of the weights."""
    mask = Mask(name=name)
    mask.build(shape)
    kept = rng.random(shape) < 0.5
    kept.reshape(-1)[:2] = [True, False]
    mask.assign(kept)
    return mask, lambda stored: np.where(kept, stored, 0), kept


def codebook(name, shape, axes, rng):
    """Three values at random places."""
    transform = Codebook(3, name=name)
    transform.build(shape)
    palette, assignments = np.array([-0.5, 0.25, 0.75], "float32"), rng.integers(0, 3, shape)
    transform.assign(palette, assignments)
    return transform, lambda stored: palette[assignments], np.ones(shape, bool)


def codebook_per_channel(name, shape, axes, rng):
    """Two values for each channel, one of them zero."""
    transform = Codebook(2, per_channel=len(shape) > 1, preserve_zeros=True, name=name)
    transform.axes = axes
    transform.build(shape)
    values = np.zeros((transform.channels, 2), "float32")
    values[:, 1] = rng.uniform(0.5, 1.0, transform.channels)
    assignments = rng.integers(0, 2, shape)
    transform.assign(values, assignments)
    channels = np.zeros(shape, int)
    for channel in range(transform.channels):
        channels[transform.channel_slice(channel)] = channel
    return transform, lambda stored: values[channels, assignments], np.ones(shape, bool)


def soft_codebook(name, shape, axes, rng):
    """Two means of the weights, so sharp that mixtures are as good as hard assignments."""
    transform = SoftCodebook(2, temperature=1e-6, name=name)
    transform.build(shape)
    transform.assign([-0.2, 0.3])

    def means(stored):
        above = stored > 0.05
        groups = [stored[above == side] for side in (False, True)]
        values = [group.mean() if group.size else start for group, start in zip(groups, (-0.2, 0.3), strict=True)]
        return np.where(np.abs(stored - values[1]) < np.abs(stored - values[0]), values[1], values[0])

    return transform, means, np.ones(shape, bool)


def fake_quantize(name, shape, axes, rng):
    """Integers of 8 bits, each output channel with a scale of its own."""
    transform = FakeQuantize(name=name)
    transform.axes = axes
    transform.build(shape)
    others = tuple(axis for axis in range(len(shape)) if axis not in axes.outputs)

    def rounded(stored):
        scale = np.maximum(np.abs(stored).max(axis=others, keepdims=True) / np.float32(127), 1e-30)
        # Divided by the backend: JAX's quotients differ in the last bit, which decides ties.
        return np.round(numpy(ops.convert_to_tensor(stored) / scale)) * scale

    return transform, rounded, np.ones(shape, bool)


# Functions (name, shape, axes, rng) -> (transform, NumPy statement of what it computes from a stored weight, where
# that weight gets a gradient).
TRANSFORMS = {
    "mask": half_mask,
    "codebook": codebook,
    "codebook_per_channel": codebook_per_channel,
    "soft_codebook": soft_codebook,
    "fake_quantize": fake_quantize,
}
# One of each way to lay out channels, and of each way to find a weight: what only depends on these is tried on them.
FEW_MODELS = (
    "conv2d",
    "conv3d_transpose",
    "depthwise_conv2d",
    "einsum_dense",
    "embedding",
    "bidirectional",
    "subclassed",
)
# What is stripped is exported, to see that files keep what the transform made of the weights: each on these layers, in
# this process; where that takes a child process, one stands for all.
EXPORTED = {(transform, name) for transform in TRANSFORMS for name in ("conv2d", "einsum_dense", "depthwise_conv2d")}
if keras.backend.backend() != "tensorflow":
    EXPORTED = {("codebook", "conv2d")}
CASES = [
    (name, transform)
    for transform in TRANSFORMS
    for name in (MODELS if transform in ("mask", "codebook") else FEW_MODELS)
]


def test_each_transform_is_in_the_list():
    made = {
        type(make("t", (4, 6), WeightAxes((0,), (1,)), np.random.default_rng(0))[0]) for make in TRANSFORMS.values()
    }
    exported = {getattr(keras_mot.transforms, name) for name in keras_mot.transforms.__all__}
    kinds = {kind for kind in exported if issubclass(kind, WeightTransform)}
    bases = {base for kind in kinds for base in kind.__mro__[1:]}
    assert kinds - bases == made


def attach_everywhere(model, make, rng):
    expected, passes = {}, {}
    for weight in find_weights(model)[0]:
        name = weight.key.replace("/", "_") + "_transform"
        transform, reference, gradient = make(name, tuple(weight.variable.shape), weight.axes, rng)
        attach(weight.host, {weight.place: [transform]})
        expected[id(weight.variable)], passes[id(weight.variable)] = reference, gradient
    return expected, passes


def numpy(tensor):
    return np.array(ops.convert_to_numpy(tensor))


@pytest.mark.parametrize(("name", "transform"), CASES)
def test_conformance(name, transform, rng, tmp_path):
    build, count = MODELS[name]
    original = build()
    x, y = sample_batch(original, rng)
    values_before = [numpy(variable) for variable in original.variables]
    paths = [variable.path for variable in original.variables]
    model = copy_model(original)
    assert [variable.path for variable in model.variables] == paths
    assert not {id(variable) for variable in model.variables} & {id(variable) for variable in original.variables}
    expected, passes = attach_everywhere(model, TRANSFORMS[transform], rng)
    assert len(expected) == count

    # The layer stays the layer it was.
    own = {id(v) for w in transformed_weights(model) for t in w.transforms for v in t.variables}
    assert [variable.path for variable in model.variables if id(variable) not in own] == paths
    for old, new in zip(original.layers, model.layers, strict=True):
        assert isinstance(new, type(old))
        assert new.name == old.name

    # The forward pass uses what the NumPy statement says, and nothing else of the stored weight.
    plain = copy_model(original)
    originals = dict(zip([v.path for v in original.variables], original.variables, strict=True))
    for weight in transformed_weights(model):
        used = expected[id(weight.variable)](numpy(originals[weight.variable.path]))
        next(v for v in plain.variables if v.path == weight.variable.path).assign(used)
    np.testing.assert_allclose(numpy(model(x)), numpy(plain(x)), rtol=1e-5, atol=1e-5)

    # A training step moves the weights that get a gradient, and only them, and what the transform learns.
    learned = [(v, numpy(v)) for w in transformed_weights(model) for t in w.transforms for v in t.trainable_variables]
    stored = {id(w.variable): numpy(w.variable) for w in transformed_weights(model)}
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.train_on_batch(x, y)
    moved = 0
    for weight in transformed_weights(model):
        in_use = passes[id(weight.variable)]
        change = numpy(weight.variable) != stored[id(weight.variable)]
        assert not change[~in_use].any(), weight.path
        moved += change[in_use].any()
    assert moved >= max(1, count - 2)  # attention's key bias and unused embedding rows may have no gradient
    assert sum((numpy(variable) != before).any() for variable, before in learned) >= len(learned) - 2

    # Saved and loaded, it is the same model; it then trains on alike.
    model.save(tmp_path / "training.keras")
    loaded = keras.models.load_model(tmp_path / "training.keras")
    np.testing.assert_allclose(numpy(loaded(x)), numpy(model(x)), rtol=1e-6, atol=1e-6)
    assert len(transformed_weights(loaded)) == count
    model.reset_metrics()  # before Keras 3.15, `train_on_batch` returns the mean over all calls
    loaded.run_eagerly = True  # the other half of what users do, and without another compilation
    losses = [float(m.train_on_batch(x, y)) for m in (model, loaded)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    np.testing.assert_allclose(numpy(loaded(x)), numpy(model(x)), rtol=1e-3, atol=1e-4)

    # Stripped, it computes the same without a trace of the transforms.
    stripped = strip(copy_model(loaded))
    np.testing.assert_allclose(numpy(stripped(x)), numpy(loaded(x)), rtol=1e-5, atol=1e-6)
    assert not any(is_transformed(layer) for layer in stripped._flatten_layers())
    assert [type(layer) for layer in stripped._flatten_layers()] == [
        type(layer) for layer in original._flatten_layers()
    ]
    for new, old in zip(stripped._flatten_layers(), original._flatten_layers(), strict=True):
        assert set(vars(new)) - {"_build_shapes_dict"} == set(vars(old)) - {"_build_shapes_dict"}
    stripped.save(tmp_path / "stripped.keras")
    with zipfile.ZipFile(tmp_path / "stripped.keras") as archive:
        assert b"keras_mot" not in archive.read("config.json")
        assert b"mask" not in archive.read("model.weights.h5")
    if (transform, name) in EXPORTED:
        exported = export_litert(stripped, tmp_path / "stripped.tflite", verification_data=numpy(x))
        (received,) = LiteRTRunner(exported.path).run(numpy(x)).values()
        np.testing.assert_allclose(received, numpy(loaded(x)), rtol=1e-4, atol=1e-5)

    # The given model has not changed.
    for before, variable in zip(values_before, original.variables, strict=True):
        np.testing.assert_array_equal(before, numpy(variable))


def test_stripped_models_load_without_the_package(rng, tmp_path):
    """Models that were pruned, clustered or quantized, stripped, and loaded where `keras_mot` cannot be imported."""
    answers = {}

    def keep(name, model, x):
        model.save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.npy", x)
        answers[name] = float(np.abs(numpy(model(x))).sum())

    for name in ("dense", "separable_conv2d", "bidirectional", "multi_head_attention", "nested", "shared"):
        model = MODELS[name][0]()
        x, _ = sample_batch(model, rng)
        attach_everywhere(model, codebook if name == "dense" else half_mask, rng)
        keep(name, strip(model), x)
    model = MODELS["conv2d"][0]()
    x, _ = sample_batch(model, rng)
    quantized = keras_mot.quantization.quantize_post_training(model, calibration_data=x)
    keep("quantized", keras_mot.quantization.strip_quantization(quantized), x)
    script = """
import json, pathlib, sys
sys.modules["keras_mot"] = None
import keras, numpy as np
folder = pathlib.Path(sys.argv[1])
print(json.dumps({path.stem: float(np.abs(keras.ops.convert_to_numpy(
    keras.models.load_model(path)(np.load(path.with_suffix(".npy"))))).sum()) for path in folder.glob("*.keras")}))
"""
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    loaded = json.loads(run.stdout.strip().splitlines()[-1])
    assert loaded == pytest.approx(answers, rel=1e-5)


def test_an_unfinished_model_names_the_package_it_needs(tmp_path):
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    keras_mot.sparsity.prune_low_magnitude(model).save(tmp_path / "unfinished.keras")
    config = zipfile.ZipFile(tmp_path / "unfinished.keras").read("config.json")
    assert b"keras_mot" in config
    assert pathlib.Path(tmp_path / "unfinished.keras").stat().st_size > 0


def test_weights_evaluated_once():
    """In one context a transformed weight is computed at its first use, and after it anew."""
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    rounded = attach(model.layers[0], {"kernel": [FakeQuantize(name="kernel_quantize")]})
    x, calls = np.eye(4, dtype="float32"), []
    (weight,) = transformed_weights(model)
    (transform,) = weight.transforms
    plain, transform.call = transform.call, lambda value: calls.append(1) or plain(value)
    with evaluated_once():
        first = ops.convert_to_numpy(model(x, training=False))
        rounded.kernel.assign(rounded.kernel * 2.0)
        np.testing.assert_array_equal(ops.convert_to_numpy(model(x, training=False)), first)
    assert len(calls) == 1
    np.testing.assert_allclose(ops.convert_to_numpy(model(x, training=False)), 2 * first, rtol=1e-6)
