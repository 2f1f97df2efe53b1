"""An LSTM autoencoder that finds what is wrong in a signal, pruned and in integers. Runs on TensorFlow.

KERAS_BACKEND=tensorflow python examples/detect_anomalies.py
"""

import pathlib
import tempfile

import keras
import numpy as np
from keras import layers

import keras_mot as kmot

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)


def signals(count, steps=16):
    """Two channels of waves of one frequency and any phase, with some noise."""
    phases = rng.uniform(0, 2 * np.pi, (count, 1, 2))
    waves = np.sin(np.arange(steps)[:, None] * np.array([0.4, 0.8]) + phases)
    return (waves + rng.normal(0, 0.05, waves.shape)).astype("float32")


normal, held_out, broken = signals(800), signals(200), signals(200)
broken[np.arange(200), rng.integers(2, 14, 200)] += rng.choice([-1.5, 1.5], (200, 2))  # a spike in each

model = keras.Sequential(
    [
        keras.Input((16, 2)),
        layers.LSTM(32, name="encoder"),
        layers.RepeatVector(16),
        layers.LSTM(32, return_sequences=True, name="decoder"),
        layers.TimeDistributed(layers.Dense(2), name="signal"),
    ]
)
model.compile(keras.optimizers.Adam(1e-2), "mse")
model.fit(normal, normal, batch_size=32, epochs=15, verbose=2)

pruned = kmot.sparsity.prune_low_magnitude(model, kmot.sparsity.PolynomialDecay(0.3, 0.7, 0, 50, frequency=10))
pruned.compile(keras.optimizers.Adam(5e-3), "mse")
pruned.fit(normal, normal, batch_size=32, epochs=5, verbose=2)
quantized = kmot.quantization.quantize_post_training(pruned, calibration_data=normal[:200])

folder = pathlib.Path(tempfile.mkdtemp())
for name, each in {"float": model, "pruned, in integers": quantized}.items():
    export = kmot.export.export_litert(each, folder / f"{'float' if name == 'float' else 'int8'}.tflite")
    runner = kmot.export.LiteRTRunner(export.path)
    worst = {}  # by how much the file is wrong where it is worst
    for kind, x in (("good", held_out), ("broken", broken)):
        (restored,) = runner.run(x).values()
        worst[kind] = np.abs(restored - x).max(axis=(1, 2))
    threshold = np.quantile(worst["good"], 0.95)
    found = np.mean(worst["broken"] > threshold)
    print(f"{name}: {export.bytes:,} bytes; finds {found:.0%} of what is broken, with 5 % false alarms")
