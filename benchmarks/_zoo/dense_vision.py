"""Image models in the style of Keras's published examples: segmentation, restoration, points, several images."""

import keras
import numpy as np
from keras import layers, ops

from .data import images, together, vectors
from .registry import architecture, register


@architecture("vision", images(32, 32, 3))
def unet():
    """An Xception-style U-Net of separable convolutions, upsampled by transposed ones."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(inputs)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    before = x
    for filters in (16, 24):
        for _ in range(2):
            x = layers.Activation("relu")(x)
            x = layers.BatchNormalization()(layers.SeparableConv2D(filters, 3, padding="same")(x))
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        before = layers.Conv2D(filters, 1, strides=2, padding="same")(before)
        x = before = layers.add([x, before])
    for filters in (24, 16, 8):
        for _ in range(2):
            x = layers.Activation("relu")(x)
            x = layers.BatchNormalization()(layers.Conv2DTranspose(filters, 3, padding="same")(x))
        x = layers.UpSampling2D(2)(x)
        before = layers.Conv2D(filters, 1, padding="same")(layers.UpSampling2D(2)(before))
        x = before = layers.add([x, before])
    return keras.Model(inputs, layers.Conv2D(3, 3, activation="softmax", padding="same")(x))


def _convolution_block(x, filters=16, size=3, dilation=1, use_bias=False):
    x = layers.Conv2D(filters, size, dilation_rate=dilation, padding="same", use_bias=use_bias)(x)
    return ops.nn.relu(layers.BatchNormalization()(x))


@architecture("vision", images(32, 32, 3))
def deeplab():
    """Atrous spatial pyramid pooling, and bilinear upsampling."""
    inputs = keras.Input((32, 32, 3))
    low = _convolution_block(layers.MaxPooling2D(2)(_convolution_block(inputs, 12)), 16)
    x = _convolution_block(layers.MaxPooling2D(2)(low), 24)
    pooled = layers.AveragePooling2D(pool_size=(x.shape[-3], x.shape[-2]))(x)
    pooled = _convolution_block(pooled, size=1, use_bias=True)
    pooled = layers.UpSampling2D(size=(8, 8), interpolation="bilinear")(pooled)
    branches = [_convolution_block(x, size=1), *(_convolution_block(x, dilation=rate) for rate in (2, 3))]
    x = _convolution_block(layers.Concatenate(axis=-1)([pooled, *branches]), size=1)
    x = layers.UpSampling2D(size=(2, 2), interpolation="bilinear")(x)
    x = layers.Concatenate(axis=-1)([x, _convolution_block(low, 8, size=1)])
    x = layers.UpSampling2D(size=(2, 2), interpolation="bilinear")(_convolution_block(_convolution_block(x)))
    return keras.Model(inputs, layers.Conv2D(5, 1, padding="same")(x))


@architecture("vision", images(16, 16, 1))
def super_resolution():
    """An efficient sub-pixel network."""
    inputs = keras.Input((16, 16, 1))
    x = layers.Conv2D(16, 5, activation="relu", padding="same", kernel_initializer="orthogonal")(inputs)
    x = layers.Conv2D(16, 3, activation="relu", padding="same", kernel_initializer="orthogonal")(x)
    x = layers.Conv2D(9, 3, activation="relu", padding="same", kernel_initializer="orthogonal")(x)
    return keras.Model(inputs, DepthToSpace(3)(x))


@register
class DepthToSpace(layers.Layer):
    def __init__(self, block, **kwargs):
        super().__init__(**kwargs)
        self.block = block

    def call(self, x):
        _, height, width, depth = x.shape
        block, channels = self.block, depth // self.block**2
        x = ops.reshape(x, (-1, height, width, block, block, channels))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height * block, width * block, channels))

    def get_config(self):
        return {**super().get_config(), "block": self.block}


@register
class ZeroDCE(keras.Model):
    """Enhances dark images by curves that a small network draws; trains without labels."""

    def __init__(self, filters=12, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        image = keras.Input((None, None, 3))

        def convolution(x, count=filters, activation="relu"):
            return layers.Conv2D(count, 3, activation=activation, padding="same")(x)

        first = convolution(image)
        second = convolution(first)
        third = convolution(second)
        fourth = convolution(layers.Concatenate()([third, second]))
        curves = convolution(layers.Concatenate()([fourth, first]), 12, "tanh")
        self.network = keras.Model(image, curves)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}

    def call(self, data):
        x, curves = data, self.network(data)
        for part in ops.split(curves, 4, axis=-1):
            x = x + part * (ops.square(x) - x)
        return x

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        exposure = ops.mean(ops.square(ops.mean(y_pred, axis=-1) - 0.6))
        means = ops.mean(y_pred, axis=(1, 2))
        return exposure + ops.mean(ops.square(means[:, 0] - means[:, 1]))


@architecture("vision", images(16, 16, 3), "subclassed", "own_step")
def zero_dce():
    model = ZeroDCE()
    model(np.zeros((1, 16, 16, 3), "float32"))
    return model


@architecture("vision", images(16, 16, 1), quick=True)
def autoencoder():
    inputs = keras.Input((16, 16, 1))
    x = layers.MaxPooling2D(2, padding="same")(layers.Conv2D(12, 3, activation="relu", padding="same")(inputs))
    x = layers.MaxPooling2D(2, padding="same")(layers.Conv2D(12, 3, activation="relu", padding="same")(x))
    x = layers.Conv2DTranspose(12, 3, strides=2, activation="relu", padding="same")(x)
    x = layers.Conv2DTranspose(12, 3, strides=2, activation="relu", padding="same")(x)
    return keras.Model(inputs, layers.Conv2D(1, 3, activation="sigmoid", padding="same")(x))


@architecture("vision", together(images(20, 20, 1), images(20, 20, 1)), "shared")
def siamese():
    """Two images through one nested network; the distance by a Lambda-like operation."""
    entry = keras.Input((20, 20, 1))
    x = layers.BatchNormalization()(entry)
    x = layers.AveragePooling2D(2)(layers.Conv2D(6, 5, activation="tanh")(x))
    x = layers.AveragePooling2D(2)(layers.Conv2D(12, 3, activation="tanh")(x))
    x = layers.BatchNormalization()(layers.Flatten()(x))
    embedding = keras.Model(entry, layers.Dense(10, activation="tanh")(x))
    left, right = keras.Input((20, 20, 1)), keras.Input((20, 20, 1))
    a, b = embedding(left), embedding(right)
    distance = ops.sqrt(ops.maximum(ops.sum(ops.square(a - b), axis=1, keepdims=True), 1e-7))
    x = layers.BatchNormalization()(distance)
    return keras.Model([left, right], layers.Dense(1, activation="sigmoid")(x))


@register
class CTCLayer(layers.Layer):
    """Adds the CTC loss in training and hands the predictions on; it takes two inputs."""

    def call(self, labels, predictions):
        lengths = ops.full((ops.shape(labels)[0],), predictions.shape[1], dtype="int32")
        label_lengths = ops.full((ops.shape(labels)[0],), labels.shape[1], dtype="int32")
        loss = ops.nn.ctc_loss(ops.cast(labels, "int32"), predictions, label_lengths, lengths, mask_index=0)
        self.add_loss(ops.mean(loss))
        return predictions


def _labels(length, count):
    return lambda n, generator: generator.integers(1, count, (n, length)).astype("float32")


@architecture(
    "vision", together(image=images(32, 16, 1), label=_labels(4, 12)), "composite", "added_loss", "recurrent", seconds=2
)
def captcha_ocr():
    """Convolutions, two bidirectional LSTMs with dropout, and a layer that adds the loss."""
    image, label = keras.Input((32, 16, 1), name="image"), keras.Input((4,), name="label")
    x = layers.MaxPooling2D(2)(layers.Conv2D(8, 3, activation="relu", padding="same", name="conv1")(image))
    x = layers.MaxPooling2D(2)(layers.Conv2D(12, 3, activation="relu", padding="same", name="conv2")(x))
    x = layers.Dense(16, activation="relu")(layers.Reshape((8, 48))(x))
    x = layers.Bidirectional(layers.LSTM(12, return_sequences=True, dropout=0.25))(layers.Dropout(0.2)(x))
    x = layers.Dense(12, name="scores")(x)
    output = CTCLayer(name="ctc_loss")(label, x)
    return keras.Model({"image": image, "label": label}, output, name="ocr")


@architecture("vision", vectors(64, 3), "composite", decides=True)
def point_net():
    """Points, with small networks that learn to turn them."""
    inputs = keras.Input((64, 3))
    x = _turn(inputs, 3)
    for filters in (16, 16):
        x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.0)(layers.Conv1D(filters, 1)(x)))
    x = _turn(x, 16)
    for filters in (24, 48):
        x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.0)(layers.Conv1D(filters, 1)(x)))
    x = layers.GlobalMaxPooling1D()(x)
    x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.0)(layers.Dense(24)(x)))
    return keras.Model(inputs, layers.Dense(5, activation="softmax")(layers.Dropout(0.3)(x)))


def _turn(x, features):
    y = x
    for filters in (12, 24):
        y = layers.Activation("relu")(layers.BatchNormalization(momentum=0.0)(layers.Conv1D(filters, 1)(y)))
    y = layers.Dense(16, activation="relu")(layers.GlobalMaxPooling1D()(y))
    bias = keras.initializers.Constant(np.eye(features).flatten())
    y = layers.Dense(features**2, kernel_initializer="zeros", bias_initializer=bias)(y)
    return layers.Dot(axes=(2, 1))([x, layers.Reshape((features, features))(y)])


@architecture("vision", images(12, 16, 16, 1))
def conv3d():
    """Volumes of scans."""
    inputs = keras.Input((12, 16, 16, 1))
    x = inputs
    for filters in (8, 12):
        x = layers.Conv3D(filters, 3, activation="relu")(x)
        x = layers.BatchNormalization()(layers.MaxPool3D(2)(x))
    x = layers.GlobalAveragePooling3D()(x)
    x = layers.Dropout(0.3)(layers.Dense(24, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


@register
class AttentionPooling(layers.Layer):
    """Weighs the members of a bag: its weights are its own, its inputs a list."""

    def __init__(self, width, gated=True, **kwargs):
        super().__init__(**kwargs)
        self.width, self.gated = width, gated

    def build(self, input_shape):
        features = input_shape[0][-1]
        self.v = self.add_weight(shape=(features, self.width), name="v")
        self.w = self.add_weight(shape=(self.width, 1), name="w")
        self.u = self.add_weight(shape=(features, self.width), name="u") if self.gated else None
        self.built = True

    def call(self, inputs):
        scores = [self.score(one) for one in inputs]
        shares = ops.softmax(ops.stack(scores), axis=0)
        return [shares[index] for index in range(len(inputs))]

    def score(self, one):
        hidden = ops.tanh(ops.tensordot(one, self.v, axes=1))
        if self.gated:
            hidden = hidden * ops.sigmoid(ops.tensordot(one, self.u, axes=1))
        return ops.tensordot(hidden, self.w, axes=1)

    def get_config(self):
        return {**super().get_config(), "width": self.width, "gated": self.gated}


@architecture("vision", together(*(images(14, 14) for _ in range(3))), "shared", "composite", decides=True)
def attention_mil():
    """Bags of images: shared layers, several outputs of one layer."""
    inputs, embedded = [], []
    first, second = layers.Dense(24, activation="relu"), layers.Dense(16, activation="relu")
    for _ in range(3):
        one = keras.Input((14, 14))
        inputs.append(one)
        embedded.append(second(first(layers.Flatten()(one))))
    shares = AttentionPooling(12, name="alpha")(embedded)
    weighted = [layers.multiply([share, one]) for share, one in zip(shares, embedded, strict=True)]
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.concatenate(weighted)))


@register
class MetricLearner(keras.Model):
    """A functional model of a class of its own, with its own loss: samples are told from each other."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        similar = ops.matmul(y_pred, ops.transpose(y_pred)) / 0.2
        same = ops.arange(ops.shape(similar)[0])
        return ops.mean(keras.losses.sparse_categorical_crossentropy(same, similar, from_logits=True))


@architecture("vision", images(20, 20, 3), "own_class", "own_step")
def metric_learning():
    inputs = keras.Input((20, 20, 3))
    x = inputs
    for filters in (12, 16):
        x = layers.Conv2D(filters, 3, strides=2, activation="relu")(x)
    x = layers.Dense(8)(layers.GlobalAveragePooling2D()(x))
    return MetricLearner(inputs, layers.UnitNormalization()(x))


@architecture("vision", images(32, 32, 3), "nested", "augmented")
def keypoints():
    """A nested backbone, called with training=False, and separable convolutions to coordinates."""
    image = keras.Input((32, 32, 3))
    x = image
    for filters, strides in ((12, 2), (16, 2), (24, 2)):
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    backbone = keras.Model(image, x, name="backbone")
    backbone.trainable = False
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(2.0, -1.0)(layers.GaussianNoise(0.1)(inputs))
    x = layers.Dropout(0.3)(backbone(x, training=False))
    x = layers.SeparableConv2D(12, 3, strides=1, activation="relu")(x)
    x = layers.SeparableConv2D(10, 2, strides=1, activation="sigmoid")(x)
    return keras.Model(inputs, x)


@architecture("vision", images(24, 24, 3), decides=True)
def prelu_face_net():
    """PReLU behind every convolution, several outputs."""
    inputs = x = keras.Input((24, 24, 3))
    for filters in (12, 16, 24):
        x = layers.Conv2D(filters, 3)(x)
        x = layers.PReLU(shared_axes=[1, 2], alpha_initializer=keras.initializers.Constant(0.25))(x)
        if filters < 24:
            x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = layers.PReLU()(layers.Dense(32)(layers.Flatten()(layers.Permute((2, 1, 3))(x))))
    return keras.Model(inputs, [layers.Dense(2, activation="softmax")(x), layers.Dense(4)(x)])


@architecture("vision", images(40, 40, 3), decides=True)
def squeeze_excite_net():
    """Channel attention, ReLU6 and hard-swish, bilinear resizing, grouped convolutions, argmax at one output."""
    inputs = keras.Input((40, 40, 3))
    x = layers.Resizing(32, 32)(inputs)
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="hard_silu")(x)
    y = layers.Conv2D(16, 3, groups=4, padding="same")(x)
    y = layers.LeakyReLU(negative_slope=0.1)(layers.GroupNormalization(4)(y))
    gate = layers.Dense(4, activation="relu6")(layers.GlobalAveragePooling2D(keepdims=True)(y))
    y = layers.Multiply()([y, layers.Dense(16, activation="hard_sigmoid")(gate)])
    x = layers.Add()([x, y])
    x = layers.Conv2D(24, 3, strides=2, padding="same", activation="mish")(x)
    x = (x - np.linspace(-0.2, 0.2, 24, dtype="float32")) / np.linspace(0.8, 1.2, 24, dtype="float32")
    x = layers.Dense(6)(layers.GlobalMaxPooling2D()(ops.clip(x, -2.0, 2.0)))
    return keras.Model(inputs, ops.log_softmax(x))
