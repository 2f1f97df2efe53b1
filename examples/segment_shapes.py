"""A small U-Net that segments discs: a quarter of its channels cut out, then in integers. Runs on TensorFlow.

KERAS_BACKEND=tensorflow python examples/segment_shapes.py
"""

import pathlib
import tempfile

import keras
import numpy as np
from keras import layers

import keras_mot as kmot

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)


def discs(count, size=32):
    """Noisy images of a disc, and which of their points are within."""
    rows, columns = np.mgrid[:size, :size]
    centres, radii = rng.uniform(8, size - 8, (count, 2, 1, 1)), rng.uniform(3, 8, (count, 1, 1))
    within = (rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2 < radii**2
    images = within * rng.uniform(0.4, 1.0, (count, 1, 1)) + rng.normal(0, 0.2, within.shape)
    return images[..., None].astype("float32"), within[..., None].astype("float32")


def block(x, filters):
    for _ in range(2):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return x


inputs = keras.Input((32, 32, 1))
fine = block(inputs, 16)
coarse = block(layers.MaxPooling2D()(fine), 32)
up = layers.Conv2DTranspose(16, 2, strides=2)(coarse)
x = block(layers.Concatenate()([up, fine]), 16)
model = keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid", name="within")(x))

train, test = discs(480), discs(160)
overlap = keras.metrics.BinaryIoU(target_class_ids=[1], threshold=0.5)
model.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy", metrics=[overlap])
model.fit(*train, batch_size=32, epochs=4, verbose=2)

# What goes through the concatenation and the transposed convolution goes with it.
thinner = kmot.sparsity.remove_pruned_channels(kmot.sparsity.prune_channels(model, 0.25))
thinner.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy", metrics=[overlap])
thinner.fit(*train, batch_size=32, epochs=4, verbose=2)
quantized = kmot.quantization.quantize_post_training(thinner, calibration_data=train[0][:200])

folder = pathlib.Path(tempfile.mkdtemp())
models = {"float": model, "three quarters of the channels": thinner, "in integers": quantized}
files = {
    name: kmot.export.export_litert(each, folder / f"{number}.tflite")
    for number, (name, each) in enumerate(models.items())
}
print(kmot.analysis.measure(files, data=test, metric=keras.metrics.BinaryIoU([1], 0.5)))
