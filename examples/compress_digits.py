"""A whole recipe by one call: `KERAS_BACKEND=tensorflow python examples/compress_digits.py`.

Prunes, clusters and quantizes a small network, fine-tuning it with the float model as its teacher, and prints what each
stage is worth.
"""

import keras
from sklearn.datasets import load_digits

import keras_mot
from keras_mot.recipes import Cluster, FineTune, Prune, QuantizeAware, Recipe

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x, y = x.astype("float32") / 16, y.astype("int32")
train, test = (x[:1400], y[:1400]), (x[1400:], y[1400:])
model = keras.Sequential(
    [keras.Input((64,)), keras.layers.Dense(128, "relu"), keras.layers.Dense(10, activation="softmax")]
)
model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(*train, epochs=15, verbose=0)

taught = FineTune(epochs=4, learning_rate=2e-3, batch_size=32, schedule="cosine", distillation=0.5)
recipe = Recipe(
    [Prune(0.75, frequency=10, fine_tune=taught), Cluster(8, fine_tune=taught), QuantizeAware(fine_tune=taught)],
    name="digits",
)
print(recipe.to_yaml())
print(keras_mot.compress(model, recipe, train, test, progress=False))
