import keras


def build_model(**compile_arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu", name="hidden"),
            keras.layers.Dense(4, activation="softmax", name="classes"),
        ]
    )
    if compile_arguments:
        model.compile(**compile_arguments)
    return model
