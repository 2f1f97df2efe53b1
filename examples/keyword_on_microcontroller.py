"""A keyword network for a microcontroller: pruned, in integers, proved in TensorFlow Lite Micro, as C++ source.

KERAS_BACKEND=tensorflow python examples/keyword_on_microcontroller.py    # needs the extra `micro`
"""

import pathlib
import tempfile

import keras
import numpy as np
from keras import layers

import keras_mot as kmot
from keras_mot.recipes import FineTune, Prune, QuantizeAware, Recipe

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)


def spectra(count, frames=24, bands=10):
    """Four "words" as spectra over time: a tone that rises, falls, stays, or comes twice."""
    words, time = rng.integers(0, 4, count), np.linspace(0, 1, frames)
    tracks = np.stack([time, 1 - time, np.full(frames, 0.5), np.abs(2 * time - 1)])[words]
    tracks = tracks * rng.uniform(5, 8, (count, 1)) + rng.uniform(0, 2, (count, 1))
    power = np.exp(-((np.arange(bands) - tracks[..., None]) ** 2)) + rng.normal(0, 0.3, (count, frames, bands))
    return power[..., None].astype("float32"), words.astype("int32")


model = keras.Sequential([keras.Input((24, 10, 1)), layers.Conv2D(16, (6, 4), strides=2, activation="relu")])
for _ in range(2):
    model.add(layers.DepthwiseConv2D(3, padding="same", activation="relu"))
    model.add(layers.Conv2D(16, 1, activation="relu"))
model.add(layers.GlobalAveragePooling2D())
model.add(layers.Dense(4, activation="softmax"))
train, test = spectra(1200), spectra(400)
model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(*train, batch_size=32, epochs=4, verbose=2)

tune = FineTune(2, 1e-3, batch_size=32)
recipe = Recipe([Prune(0.5, frequency=10, fine_tune=tune), QuantizeAware(fine_tune=tune)], name="keyword")
folder = pathlib.Path(tempfile.mkdtemp())
result = kmot.compress(model, recipe, train, test, output_dir=folder, target="micro", progress=False)
print(result)

# For the device: the weights encoded, the file as a C array, and a program that runs it.
on_device = kmot.export.export_litert(result.model, folder / "keyword.tflite", compress_weights="auto")
print(on_device)
print(kmot.export.write_micro_sources(on_device, folder / "firmware", "keyword"))
