"""Every family of Keras Applications, the smallest of each, on small images; some nested in a transfer model."""

import keras
import numpy as np
from keras import layers

from .data import pixels
from .registry import ARCHITECTURES, Architecture, settled

# Family: (name of its smallest member, side of the image, options).
FAMILIES = {
    "convnext": ("ConvNeXtTiny", 32, {}),
    "densenet": ("DenseNet121", 32, {}),
    "efficientnet": ("EfficientNetB0", 32, {}),
    "efficientnet_v2": ("EfficientNetV2B0", 32, {}),
    "inception_resnet_v2": ("InceptionResNetV2", 75, {}),
    "inception_v3": ("InceptionV3", 75, {}),
    "mobilenet": ("MobileNet", 32, {"alpha": 0.25}),
    "mobilenet_v2": ("MobileNetV2", 32, {"alpha": 0.35}),
    "mobilenet_v3": ("MobileNetV3Small", 32, {"minimalistic": False, "alpha": 0.75}),
    "nasnet": ("NASNetMobile", 32, {}),
    "resnet": ("ResNet50", 32, {}),
    "resnet_v2": ("ResNet50V2", 32, {}),
    "vgg16": ("VGG16", 32, {}),
    "vgg19": ("VGG19", 32, {}),
    "xception": ("Xception", 71, {}),
}
NESTED = ("efficientnet", "mobilenet_v2", "mobilenet_v3", "resnet_v2", "xception")


def _base(family):
    """The family's network without its top, its statistics estimated."""
    name, side, options = FAMILIES[family]
    base = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(side, side, 3), **options)
    _steady(base)
    if not any(isinstance(layer, layers.BatchNormalization) for layer in base.layers):
        for layer in base.layers:  # ReLU halves the variance, which normalization would bring back
            if isinstance(layer, layers.Conv2D) and layer.activation is keras.activations.relu:
                layer.kernel.assign(layer.kernel * 1.4)
    return settled(base, pixels(side, side, 3)(16, np.random.default_rng(1)))


def _steady(base):
    """Shifts what is normalized, so that most activations are in the bend of few functions.

    Without, a network of random weights that is a hundred layers deep multiplies whatever is off in front by 190 to 250
    (EfficientNet), where a trained one passes it on: its results in floats of 32 bits then differ from runtime to
    runtime, and in integers are noise.
    """
    generator = np.random.default_rng(4)
    for layer in base.layers:
        if isinstance(layer, layers.BatchNormalization) and layer.beta is not None:
            layer.beta.assign(generator.normal(2.0, 0.3, layer.beta.shape))


def _plain(family):
    def build():
        base = _base(family)
        x = layers.GlobalAveragePooling2D()(base.output)
        return keras.Model(base.input, layers.Dense(10, activation="softmax")(x), name=family)

    return build


def _nested(family):
    def build():
        base = _base(family)
        base.trainable = False
        _, side, _ = FAMILIES[family]
        inputs = keras.Input((side, side, 3))
        augment = [layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.RandomContrast(0.1)]
        x = keras.Sequential(augment, name="augmentation")(inputs)
        if family in ("mobilenet_v2", "resnet_v2", "xception"):
            x = layers.Rescaling(1 / 127.5, offset=-1)(x)
        x = layers.GlobalAveragePooling2D()(base(x, training=False))
        x = layers.Dropout(0.2)(layers.BatchNormalization()(x))
        return keras.Model(inputs, layers.Dense(5, activation="softmax")(x), name=f"transfer_{family}")

    return build


def _enter(name, family, build, *traits):
    _, side, _ = FAMILIES[family]
    data = pixels(side, side, 3)
    ARCHITECTURES[name] = Architecture(name, "applications", build, data, traits, decides=True, seconds=4)


for _family in FAMILIES:
    _enter(f"app_{_family}", _family, _plain(_family))
for _family in NESTED:
    _enter(f"transfer_{_family}", _family, _nested(_family), "nested", "augmented")
