"""What the trainer of a model, its optimizer, its metrics and its callbacks know."""

import keras

from keras_mot._keras.layers import flatten_layers


def forget_compilation(layer):
    """Makes a model that was changed in place uncompiled: its compiled functions compute what it was before."""
    for model in flatten_layers(layer):
        if hasattr(model, "train_function"):
            model.train_function = model.test_function = model.predict_function = None
            model.compiled = False


def applied_gradients(model):
    """How often the optimizer of a model has been given gradients; `None` if it has no counter, or skips some steps.

    In the middle of JAX's epoch the variables are empty: the number is then taken from the trainer's state.
    """
    optimizer = getattr(model, "optimizer", None)
    counter = getattr(optimizer, "_iterations", None)
    if counter is None or hasattr(optimizer, "inner_optimizer"):
        return None
    state = getattr(model, "_jax_state", None)
    if state and not model._jax_state_synced:
        values = zip(optimizer.variables, state["optimizer_variables"], strict=True)
        return next((int(value) for variable, value in values if variable is counter), None)
    return int(keras.ops.convert_to_numpy(counter))


def model_of(callback):
    """The model of a callback; unlike `callback.model`, it does not have JAX's trainer fill the variables."""
    return callback._model


def finish_callbacks(callback_list):
    """Waits for the callbacks that a `CallbackList` has sent to threads of its own."""
    if callback_list is not None and callback_list._futures:
        callback_list._flush_futures()


def metric_direction(metric):
    """Whether more of a Keras metric is better (`True`) or less (`False`); `None` if Keras does not know."""
    return {"up": True, "down": False}.get(getattr(metric, "_direction", None))


def compiled_call(model, function=lambda call, inputs: call(inputs)):
    """A function from inputs to the model's outputs in inference, compiled at its first call.

    It reads the variables anew at each call. PyTorch runs it as it is.

    Args:
        model: a built model.
        function: what is compiled, if that is more than the model: a function from a function that calls the model on
            inputs, and from arguments.

    Returns:
        A function of the arguments of `function` that follow the first.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        def run(*arguments):
            return function(lambda inputs: model(inputs, training=False), *arguments)

        # Batches of other sizes are traced together, without TensorFlow's warnings of retracing.
        compiled = tf.function(run, autograph=False, reduce_retracing=True)
        # TensorFlow takes all models' functions for one, as they come from these lines, and warns that it is traced
        # again and again.
        compiled._omit_frequent_tracing_warning = True
        return compiled
    if backend == "jax":
        import jax

        @jax.jit
        def call(trainable, others, *arguments):
            return function(
                lambda inputs: model.stateless_call(trainable, others, inputs, training=False)[0], *arguments
            )

        return lambda *arguments: call(
            [variable.value for variable in model.trainable_variables],
            [variable.value for variable in model.non_trainable_variables],
            *arguments,
        )
    return lambda *arguments: function(lambda inputs: model(inputs, training=False), *arguments)
