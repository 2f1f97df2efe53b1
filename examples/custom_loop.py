"""Pruning in a training loop of one's own, on each backend: `KERAS_BACKEND=torch python examples/custom_loop.py`.

What the loops have in common is one call after every step: `update_pruning_step(pruned)`.
"""

import keras
import numpy as np
from sklearn.datasets import load_digits

from keras_mot.sparsity import (
    PolynomialDecay,
    prune_low_magnitude,
    pruning_due,
    pruning_report,
    strip_pruning,
    update_pruning_step,
)

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x, y = x.astype("float32") / 16, y.astype("int32")
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])
loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
optimizer = keras.optimizers.Adam(5e-3)

pruned = prune_low_magnitude(model, PolynomialDecay(0.5, 0.9, begin_step=0, end_step=400, frequency=20))
optimizer.build(pruned.trainable_variables)


def batches(steps=600, size=32):
    generator = np.random.default_rng(0)
    for _ in range(steps):
        chosen = generator.integers(0, len(x), size)
        yield x[chosen], y[chosen]


def train_with_tensorflow():
    import tensorflow as tf

    @tf.function
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_function(y, pruned(x, training=True))
        optimizer.apply(tape.gradient(loss, pruned.trainable_variables), pruned.trainable_variables)

    for batch in batches():
        train_step(*batch)
        update_pruning_step(pruned)


def train_with_torch():
    import torch

    for x, y in batches():
        pruned.zero_grad()
        loss_function(torch.as_tensor(y), pruned(torch.as_tensor(x), training=True)).backward()
        with torch.no_grad():
            gradients = [variable.value.grad for variable in pruned.trainable_variables]
            optimizer.apply(gradients, pruned.trainable_variables)
        update_pruning_step(pruned)


def train_with_jax():
    import jax

    variables = (pruned.trainable_variables, pruned.non_trainable_variables, optimizer.variables)

    def read():
        return [[variable.value for variable in group] for group in variables]

    def write(state):
        for group, values in zip(variables, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)

    def compute_loss(trainable, non_trainable, x, y):
        logits, non_trainable = pruned.stateless_call(trainable, non_trainable, x, training=True)
        return loss_function(y, logits), non_trainable

    @jax.jit
    def train_step(state, x, y):
        trainable, non_trainable, optimizer_state = state
        gradients, non_trainable = jax.grad(compute_loss, has_aux=True)(trainable, non_trainable, x, y)
        trainable, optimizer_state = optimizer.stateless_apply(optimizer_state, gradients, trainable)
        return [trainable, non_trainable, optimizer_state]

    state = read()
    for batch in batches():
        state = train_step(state, *batch)
        due = pruning_due(pruned)
        if due:  # masks are chosen from the weights as they are now ...
            write(state)
        update_pruning_step(pruned)
        if due:  # ... and are variables too, which the next step must see
            state = read()
    write(state)


{"tensorflow": train_with_tensorflow, "torch": train_with_torch, "jax": train_with_jax}[keras.backend.backend()]()
print(pruning_report(pruned))
small = strip_pruning(pruned)
accuracy = (small.predict(x, verbose=0).argmax(-1) == y).mean()
print(f"accuracy on the training data: {accuracy:.2%}")
