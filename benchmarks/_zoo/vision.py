"""Image models in the style of Keras's published examples: transformers and their kin."""

import keras
import numpy as np
from keras import layers, ops

from .data import images, pixels
from .registry import architecture, register


class Patches(layers.Layer):
    """Cuts images into patches; as in many examples, without a configuration of its own."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def call(self, inputs):
        shape = ops.shape(inputs)
        rows, columns, channels = shape[1] // self.size, shape[2] // self.size, shape[3]
        patches = keras.ops.image.extract_patches(inputs, size=self.size)
        return ops.reshape(patches, (shape[0], rows * columns, self.size * self.size * channels))


@register
class PatchEncoder(layers.Layer):
    """A projection and learned positions, made in `__init__`, without `build`."""

    def __init__(self, count, width, **kwargs):
        super().__init__(**kwargs)
        self.count, self.width = count, width
        self.projection = layers.Dense(width)
        self.positions = layers.Embedding(count, width)

    def call(self, patches):
        numbers = ops.expand_dims(ops.arange(0, self.count), 0)
        return self.projection(patches) + self.positions(numbers)

    def get_config(self):
        return {**super().get_config(), "count": self.count, "width": self.width}


def mlp(x, units, dropout=0.1):
    for width in units:
        x = layers.Dense(width, activation="gelu")(x)
        x = layers.Dropout(dropout)(x)
    return x


def encoder_block(x, heads, width):
    y = layers.LayerNormalization(epsilon=1e-6)(x)
    y = layers.MultiHeadAttention(heads, width // heads, dropout=0.1)(y, y)
    x = layers.Add()([x, y])
    y = layers.LayerNormalization(epsilon=1e-6)(x)
    return layers.Add()([x, mlp(y, (width * 2, width))])


@architecture("vision", images(24, 24, 3), "composite", "no_config", decides=True, custom_objects={"Patches": Patches})
def vit():
    inputs = keras.Input((24, 24, 3))
    x = layers.Normalization(mean=[0.5] * 3, variance=[0.08] * 3)(inputs)
    x = PatchEncoder(16, 32)(Patches(6)(x))
    for _ in range(2):
        x = encoder_block(x, 2, 32)
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.5)(x)
    return keras.Model(inputs, layers.Dense(10)(mlp(x, (64, 32))))


@register
class MixerBlock(layers.Layer):
    """Mixes over patches, then over channels; its layers are small sequential models, never built by itself."""

    def __init__(self, patches, width, dropout=0.2, **kwargs):
        super().__init__(**kwargs)
        self.patches, self.width, self.dropout = patches, width, dropout
        self.tokens = keras.Sequential(
            [layers.Dense(patches, activation="gelu"), layers.Dense(patches), layers.Dropout(dropout)]
        )
        self.channels = keras.Sequential(
            [layers.Dense(width, activation="gelu"), layers.Dense(width), layers.Dropout(dropout)]
        )
        self.normalize = layers.LayerNormalization(epsilon=1e-6)

    def build(self, input_shape):
        return super().build(input_shape)

    def call(self, inputs):
        x = self.normalize(inputs)
        x = ops.transpose(self.tokens(ops.transpose(x, (0, 2, 1))), (0, 2, 1)) + inputs
        return x + self.channels(self.normalize(x))

    def get_config(self):
        return {**super().get_config(), "patches": self.patches, "width": self.width, "dropout": self.dropout}


def _classify_patches(block, patches=16, width=32, count=2):
    inputs = keras.Input((24, 24, 3))
    x = PatchEncoder(patches, width)(Patches(6)(inputs))
    x = keras.Sequential([block(patches, width) for _ in range(count)])(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.Dropout(0.2)(x)))


@architecture("vision", images(24, 24, 3), "composite", "no_config", decides=True, custom_objects={"Patches": Patches})
def mlp_mixer():
    return _classify_patches(MixerBlock)


@register
class GatedBlock(layers.Layer):
    """A gated MLP: half of the channels gate the other half over patches."""

    def __init__(self, patches, width, **kwargs):
        super().__init__(**kwargs)
        self.patches, self.width = patches, width
        self.widen = keras.Sequential([layers.Dense(2 * width, activation="gelu"), layers.Dropout(0.1)])
        self.narrow = layers.Dense(width)
        self.spatial = layers.Dense(patches, bias_initializer="ones")
        self.norms = [layers.LayerNormalization(epsilon=1e-6), layers.LayerNormalization(epsilon=1e-6)]

    def gate(self, x):
        u, v = ops.split(x, 2, axis=-1)
        v = self.spatial(ops.transpose(self.norms[1](v), (0, 2, 1)))
        return u * ops.transpose(v, (0, 2, 1))

    def call(self, inputs):
        return inputs + self.narrow(self.gate(self.widen(self.norms[0](inputs))))

    def get_config(self):
        return {**super().get_config(), "patches": self.patches, "width": self.width}


@architecture("vision", images(24, 24, 3), "composite", "no_config", decides=True, custom_objects={"Patches": Patches})
def gmlp():
    return _classify_patches(GatedBlock)


@architecture("vision", images(24, 24, 3), decides=True)
def convmixer():
    inputs = keras.Input((24, 24, 3))
    x = layers.Rescaling(1.0 / 0.5, offset=-1.0)(inputs)
    x = layers.Conv2D(24, 2, strides=2)(x)
    x = layers.BatchNormalization()(layers.Activation("gelu")(x))
    for _ in range(3):
        start = x
        x = layers.DepthwiseConv2D(5, padding="same")(x)
        x = layers.Add()([layers.BatchNormalization()(layers.Activation("gelu")(x)), start])
        x = layers.Conv2D(24, 1)(x)
        x = layers.BatchNormalization()(layers.Activation("gelu")(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.GlobalAvgPool2D()(x)))


def window_partition(x, size, side, channels):
    x = ops.reshape(x, (-1, side // size, size, side // size, size, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, size * size, channels))


def window_reverse(x, size, side, channels):
    x = ops.reshape(x, (-1, side // size, side // size, size, size, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, side, side, channels))


@register
class WindowAttention(layers.Layer):
    """Attention in windows, with a learned bias for each relative position."""

    def __init__(self, width, size, heads, **kwargs):
        super().__init__(**kwargs)
        self.width, self.size, self.heads = width, size, heads
        self.qkv, self.out = layers.Dense(width * 3), layers.Dense(width)
        self.dropout = layers.Dropout(0.03)

    def build(self, input_shape):
        self.table = self.add_weight(
            shape=((2 * self.size - 1) ** 2, self.heads),
            initializer=keras.initializers.RandomNormal(0.0, 0.2),
            name="table",
        )
        positions = [(row, column) for row in range(self.size) for column in range(self.size)]
        self.numbers = [
            (a - c + self.size - 1) * (2 * self.size - 1) + b - d + self.size - 1
            for a, b in positions
            for c, d in positions
        ]
        self.built = True

    def call(self, x, mask=None):
        count, head = self.size**2, self.width // self.heads
        qkv = ops.transpose(ops.reshape(self.qkv(x), (-1, count, 3, self.heads, head)), (2, 0, 3, 1, 4))
        q, k, v = qkv[0] * head**-0.5, qkv[1], qkv[2]
        scores = q @ ops.transpose(k, (0, 1, 3, 2))
        bias = ops.reshape(ops.take(self.table, ops.array(self.numbers, "int32"), axis=0), (count, count, self.heads))
        scores = scores + ops.expand_dims(ops.transpose(bias, (2, 0, 1)), 0)
        weights = self.dropout(ops.softmax(scores, axis=-1))
        return self.out(ops.reshape(ops.transpose(weights @ v, (0, 2, 1, 3)), (-1, count, self.width)))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "size": self.size, "heads": self.heads}


@register
class SwinBlock(layers.Layer):
    """A shifted-window transformer block over a square of patches."""

    def __init__(self, width, side, size, heads, shift=0, **kwargs):
        super().__init__(**kwargs)
        self.width, self.side, self.size, self.heads, self.shift = width, side, size, heads, shift
        self.norms = [layers.LayerNormalization(epsilon=1e-5) for _ in range(2)]
        self.attention = WindowAttention(width, size, heads)
        self.mlp = keras.Sequential(
            [layers.Dense(width * 2, activation="gelu"), layers.Dropout(0.03), layers.Dense(width)]
        )

    def call(self, x):
        start, side = x, self.side
        x = ops.reshape(self.norms[0](x), (-1, side, side, self.width))
        if self.shift:
            x = ops.roll(x, (-self.shift, -self.shift), axis=(1, 2))
        x = window_partition(x, self.size, side, self.width)
        x = window_reverse(self.attention(x), self.size, side, self.width)
        if self.shift:
            x = ops.roll(x, (self.shift, self.shift), axis=(1, 2))
        x = start + ops.reshape(x, (-1, side * side, self.width))
        return x + self.mlp(self.norms[1](x))

    def get_config(self):
        names = ("width", "side", "size", "heads", "shift")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@architecture("vision", images(24, 24, 3), "composite", "no_config", decides=True, custom_objects={"Patches": Patches})
def swin():
    inputs = keras.Input((24, 24, 3))
    x = PatchEncoder(64, 24)(Patches(3)(inputs))
    x = SwinBlock(24, 8, 4, 3)(x)
    x = SwinBlock(24, 8, 4, 3, shift=2)(x)
    x = layers.Reshape((4, 2, 4, 2, 24))(x)
    x = layers.Dense(48, use_bias=False)(layers.Reshape((16, 96))(layers.Permute((1, 3, 2, 4, 5))(x)))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


def _conv_block(x, filters, size=3, strides=1):
    return layers.Conv2D(filters, size, strides=strides, activation="swish", padding="same")(x)


def _inverted_residual(x, expanded, output, strides=1):
    y = layers.Conv2D(expanded, 1, padding="same", use_bias=False)(x)
    y = layers.Activation("swish")(layers.BatchNormalization()(y))
    if strides == 2:
        y = layers.ZeroPadding2D(((0, 1), (0, 1)))(y)
    y = layers.DepthwiseConv2D(3, strides=strides, padding="same" if strides == 1 else "valid", use_bias=False)(y)
    y = layers.Activation("swish")(layers.BatchNormalization()(y))
    y = layers.BatchNormalization()(layers.Conv2D(output, 1, padding="same", use_bias=False)(y))
    return layers.Add()([y, x]) if strides == 1 and x.shape[-1] == output else y


@architecture("vision", images(32, 32, 3), decides=True)
def mobilevit():
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1.0)(inputs)
    x = _inverted_residual(_conv_block(x, 12, strides=2), 24, 16)
    x = _inverted_residual(x, 32, 24, strides=2)
    local = _conv_block(_conv_block(x, 24), 24, size=1)
    patches = layers.Reshape((4, 16, 24))(local)
    for _ in range(2):
        patches = encoder_block(patches, 2, 24)
    folded = layers.Reshape((*local.shape[1:-1], 24))(patches)
    x = layers.Concatenate()([x, _conv_block(folded, 24, size=1)])
    x = _inverted_residual(_conv_block(x, 24), 48, 32, strides=2)
    return keras.Model(inputs, layers.Dense(5, activation="softmax")(layers.GlobalAvgPool2D()(x)))


@architecture("vision", pixels(24, 24, 3), "composite", decides=True)
def compact_transformer():
    """A convolutional tokenizer in a layer, and pooling by learned attention over the sequence."""
    inputs = keras.Input((24, 24, 3))
    augmented = keras.Sequential([layers.Rescaling(1 / 255.0), layers.RandomCrop(24, 24), layers.RandomFlip()])(inputs)
    x = ConvTokenizer((16, 32))(augmented)
    for _ in range(2):
        x = StochasticBlock(32, 2, 0.1)(x)
    x = layers.LayerNormalization(epsilon=1e-5)(x)
    weights = ops.softmax(layers.Dense(1)(x), axis=1)
    pooled = ops.squeeze(ops.matmul(ops.transpose(weights, (0, 2, 1)), x), -2)
    return keras.Model(inputs, layers.Dense(10)(pooled))


@register
class ConvTokenizer(layers.Layer):
    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = tuple(filters)
        self.model = keras.Sequential()
        for count in self.filters:
            self.model.add(layers.Conv2D(count, 3, padding="valid", use_bias=False, activation="relu"))
            self.model.add(layers.ZeroPadding2D(1))
            self.model.add(layers.MaxPooling2D(3, 2, "same"))

    def call(self, image):
        x = self.model(image)
        return ops.reshape(x, (-1, ops.shape(x)[1] * ops.shape(x)[2], self.filters[-1]))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@register
class StochasticDepth(layers.Layer):
    """Drops whole samples of a branch in training."""

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator(7)

    def call(self, x, training=None):
        if not training:
            return x
        keep = 1 - self.rate
        shape = (ops.shape(x)[0], 1, 1)
        return x / keep * ops.floor(keep + keras.random.uniform(shape, seed=self.seed_generator))

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


@register
class StochasticBlock(layers.Layer):
    """Attention and a feed-forward net, each dropped at random; `training` is handed on by hand."""

    def __init__(self, width, heads, rate, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads, self.rate = width, heads, rate
        self.before = layers.LayerNormalization(epsilon=1e-5)
        self.attention = layers.MultiHeadAttention(heads, width // heads, dropout=0.1)
        self.between = layers.LayerNormalization(epsilon=1e-5)
        self.feed = [layers.Dense(width * 2, activation="gelu"), layers.Dense(width)]
        self.drop = StochasticDepth(rate)

    def call(self, x, training=None):
        y = self.before(x)
        x = x + self.drop(self.attention(y, y, training=training), training=training)
        y = self.between(x)
        for layer in self.feed:
            y = layer(y)
        return x + self.drop(y, training=training)

    def get_config(self):
        return {**super().get_config(), "width": self.width, "heads": self.heads, "rate": self.rate}


@architecture("vision", images(24, 24, 3), "subclassed", "composite", decides=True)
def involution():
    """Kernels that a layer makes from each pixel, and a model that is a class."""
    model = InvolutionNet()
    model(np.zeros((1, 24, 24, 3), "float32"))
    return model


@register
class Involution(layers.Layer):
    def __init__(self, channels, size, **kwargs):
        super().__init__(**kwargs)
        self.channels, self.size = channels, size

    def build(self, input_shape):
        self.height, self.width = input_shape[1], input_shape[2]
        self.reduce = keras.Sequential(
            [layers.Conv2D(self.channels // 2, 1), layers.BatchNormalization(), layers.ReLU()]
        )
        self.span = layers.Conv2D(self.size**2, 1)
        self.built = True

    def call(self, x):
        shape = (-1, self.height, self.width, self.size**2, 1)
        kernels = ops.reshape(self.span(self.reduce(x)), shape)
        patches = ops.image.extract_patches(x, self.size, strides=1, padding="same")
        patches = ops.reshape(patches, (*shape[:-1], self.channels))
        return ops.sum(kernels * patches, axis=3)

    def get_config(self):
        return {**super().get_config(), "channels": self.channels, "size": self.size}


@register
class InvolutionNet(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Conv2D(8, 3, padding="same", activation="relu")
        self.blocks = [Involution(8, 3) for _ in range(2)]
        self.pool, self.flatten = layers.MaxPooling2D(2), layers.Flatten()
        self.hidden, self.last = layers.Dense(32, activation="relu"), layers.Dense(10)

    def call(self, inputs):
        x = self.first(inputs)
        for block in self.blocks:
            x = self.pool(ops.relu(block(x)))
        return self.last(self.hidden(self.flatten(x)))
