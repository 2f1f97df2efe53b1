"""Pruning, then clustering what is left: a network for scikit-learn's digits, and what each step does to its size.

KERAS_BACKEND=tensorflow python examples/cluster_digits.py
"""

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_mot as kmot

digits = load_digits()
x_train, x_test, y_train, y_test = train_test_split(
    digits.images[..., None].astype("float32") / 16, digits.target, test_size=0.25, random_state=0
)


def fit(model, epochs):
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=64, epochs=epochs, verbose=0)
    return model


model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
fit(model, 10)

schedule = kmot.sparsity.PolynomialDecay(0.3, 0.8, begin_step=0, end_step=100, frequency=10)
pruned = kmot.sparsity.strip_pruning(fit(kmot.sparsity.prune_low_magnitude(model, schedule), 8))

settings = kmot.clustering.ClusteringConfig(8, frequency=5)
clustered = fit(kmot.clustering.cluster_weights(pruned, settings, preserve_sparsity=True), 4)
print(kmot.clustering.clustering_report(clustered))
both = kmot.clustering.strip_clustering(clustered)

models = {"float": model, "pruned": pruned, "pruned and clustered": both}
print(kmot.analysis.measure(models, data=(x_test, y_test), latency_runs=0))
