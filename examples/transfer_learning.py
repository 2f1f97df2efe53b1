"""Transfer learning on MobileNetV2 of Keras Applications: a new head, its base pruned while it is tuned, in integers.

Its weights are downloaded, trained on ImageNet, with `--imagenet`. Without, where there is no network, the base learns
eight of the kinds of shapes below first. The head then learns two kinds that the base has not seen, from 200 images.
Float is right in 96.8 % of such images then, and half of the 1x1 kernels zero and all in integers in 95.8 %: 205 and
68 kB zipped.

KERAS_BACKEND=tensorflow python examples/transfer_learning.py [--imagenet]    # `--quick`: the first block of the base
"""

import sys
import tempfile

import keras
import numpy as np
from keras import layers

import keras_mot as kmot

QUICK = "--quick" in sys.argv
SIZE = 32 if QUICK else 64
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)


def shapes(count, kinds):
    """Noisy images of stars with that many waves on their edge, of any colours, anywhere."""
    waves, rows, columns = rng.choice(kinds, count), *np.mgrid[:SIZE, :SIZE] / SIZE
    top, left, turn = (rng.uniform(low, high, (count, 1, 1)) for low, high in ((0.4, 0.6), (0.4, 0.6), (0, 6.3)))
    edge = 0.3 * (1 + 0.3 * np.cos(waves[:, None, None] * np.arctan2(rows - top, columns - left) + turn))
    within = np.hypot(rows - top, columns - left) < edge
    colours = rng.uniform(0, 255, (2, count, 1, 1, 3))
    images = np.where(within[..., None], *colours) + rng.normal(0, 10, (count, SIZE, SIZE, 3))
    return images.clip(0, 255).astype("float32"), np.searchsorted(kinds, waves).astype("int32")


def classifier(base, classes):
    inputs = keras.Input((SIZE, SIZE, 3))
    x = base(layers.Rescaling(1 / 127.5, -1)(inputs))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x))


def fit(model, data, epochs, rate):
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*data, batch_size=32, epochs=1 if QUICK else epochs, verbose=2)
    return model


weights = "imagenet" if "--imagenet" in sys.argv else None
whole = keras.applications.MobileNetV2((SIZE, SIZE, 3), alpha=0.35, include_top=False, weights=weights)
# The last blocks are for large images: what they add is left out.
base = keras.Model(whole.input, whole.get_layer("expanded_conv_project_BN" if QUICK else "block_10_project_BN").output)
for layer in base.layers:
    if isinstance(layer, layers.BatchNormalization):
        layer.momentum = 0.9  # 0.999 wants thousands of steps
if weights is None:
    fit(classifier(base, 8), shapes(64 if QUICK else 4000, [0, 1, 2, 4, 6, 7, 8, 9]), 6, 2e-3)

few, test = shapes(64 if QUICK else 200, [3, 5]), shapes(64 if QUICK else 500, [3, 5])
base.trainable = False
model = fit(classifier(base, 2), few, 10, 1e-2)
base.trainable = True  # all of it now, slowly, while half of its weights become zeros
schedule = kmot.sparsity.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=2 if QUICK else 40, frequency=2)
pruned = fit(kmot.sparsity.prune_low_magnitude(model, schedule), few, 10, 3e-4)
quantized = kmot.quantization.quantize_post_training(pruned, calibration_data=few[0])

with tempfile.TemporaryDirectory() as folder:
    models = {"float": model, "int8": quantized}
    files = {name: kmot.export.export_litert(each, f"{folder}/{name}.tflite") for name, each in models.items()}
    print(kmot.analysis.measure(files, data=test))
