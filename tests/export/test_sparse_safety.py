"""Graph shapes for which sparse inference on Arm is, or is not, known to be right."""

import keras
import pytest
from export_helpers import zero_smallest
from keras import layers

from keras_mot.export import export_litert
from keras_mot.export.litert.sparse.safety import check_sparse_safety

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="reads files, which are the same on every backend"
)


def stem(x, padding=True, stride=2):
    x = layers.ZeroPadding2D(1)(x) if padding else x
    return layers.Conv2D(16, 3, strides=stride, padding="valid" if padding else "same", activation="relu")(x)


def pointwise(x, filters=32):
    return layers.Conv2D(filters, 1, activation="relu")(x)


def depthwise(x, stride=1):
    if stride == 1:
        return layers.DepthwiseConv2D(3, padding="same")(x)
    return layers.DepthwiseConv2D(3, strides=stride)(layers.ZeroPadding2D(1)(x))


def head(x):
    return layers.Dense(4)(layers.GlobalAveragePooling2D()(x))


def supported(x):
    x = depthwise(pointwise(stem(x)))
    return head(layers.Add()([pointwise(x), pointwise(x)]))


def strided(x):
    return head(pointwise(depthwise(pointwise(stem(x)), stride=2)))


def no_stem(x):
    return head(pointwise(stem(x, padding=False)))


def no_end(x):
    return layers.Dense(4)(layers.Flatten()(pointwise(x)))


def leaving_branch(x):
    x = pointwise(stem(x))
    pooled = layers.GlobalMaxPooling2D()(pointwise(x))
    return layers.Concatenate()([head(pointwise(x)), layers.Dense(4)(pooled)])


def output_inside(x):
    x = pointwise(stem(x))
    return [x, head(pointwise(x))]


def kept_dimensions(x):
    x = layers.GlobalAveragePooling2D(keepdims=True)(pointwise(stem(x)))
    return layers.Flatten()(pointwise(x, 4))


def value_from_outside(x):
    side = layers.MaxPooling2D(2)(x)
    return head(pointwise(layers.Add()([pointwise(stem(x)), layers.Conv2D(32, 3, padding="same")(side)])))


def export_content(build, tmp_path, zeros=0.9):
    """A sparsely encoded file of the graph, whatever the verdict on it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, build(inputs))
    zero_smallest(model, zeros)
    path = tmp_path / "model.tflite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_mot.export.litert.sparse.choice.check_sparse_safety", _always_safe)
        assert export_litert(model, path, sparse_encoding=True).sparse_encoding
    return model, path


def _always_safe(content):
    verdict = check_sparse_safety(content)
    return type(verdict)(True, False, "for the test")


@pytest.mark.parametrize("build", [supported, strided])
def test_supported_shapes(build, tmp_path):
    verdict = check_sparse_safety(export_content(build, tmp_path)[1])
    assert verdict.safe
    assert verdict.sparse_kernels


@pytest.mark.parametrize(("build", "reason"), [(no_stem, "no stem"), (no_end, "no stem")])
def test_shapes_that_stay_dense(build, reason, tmp_path):
    verdict = check_sparse_safety(export_content(build, tmp_path)[1])
    assert verdict.safe
    assert not verdict.sparse_kernels
    assert reason in verdict.reason


def test_too_few_zeros_stay_dense(tmp_path):
    verdict = check_sparse_safety(export_content(leaving_branch, tmp_path, zeros=0.6)[1])
    assert verdict.safe
    assert "2/3" in verdict.reason


UNSAFE = [
    (leaving_branch, "REDUCE_MAX|MAX_POOL"),
    (output_inside, "output of the model inside"),
    (kept_dimensions, "MEAN"),
    (value_from_outside, "from outside"),
]


@pytest.mark.parametrize(("build", "reason"), UNSAFE)
def test_unsafe_shapes(build, reason, tmp_path):
    verdict = check_sparse_safety(export_content(build, tmp_path)[1])
    assert not verdict.safe
    assert any(part in verdict.reason for part in reason.split("|"))


def test_unsafe_shape_falls_back_or_fails(tmp_path):
    model, path = export_content(output_inside, tmp_path)
    path.unlink()
    result = export_litert(model, path)
    assert not result.sparse_encoding
    assert "Arm may give wrong outputs" in result.sparse_reason
    path.unlink()
    with pytest.raises(ValueError, match="Arm may give wrong outputs"):
        export_litert(model, path, sparse_encoding=True)
    assert not path.exists()


def test_dense_file_is_safe(tmp_path):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    result = export_litert(model, tmp_path / "model.tflite")
    assert check_sparse_safety(result.path).reason == "no weight is sparsely encoded"
