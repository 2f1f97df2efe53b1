"""Generative models in the style of Keras's published examples, most with a way of their own to train."""

import keras
import numpy as np
from keras import layers, ops

from .data import images, together, vectors
from .registry import architecture, register


@register
class Sampling(layers.Layer):
    """Draws from a normal distribution, also in inference."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1337)

    def call(self, inputs):
        mean, log_variance = inputs
        noise = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_variance) * noise


def vae_encoder():
    inputs = keras.Input((16, 16, 1))
    x = layers.Conv2D(8, 3, activation="relu", strides=2, padding="same")(inputs)
    x = layers.Conv2D(12, 3, activation="relu", strides=2, padding="same")(x)
    x = layers.Dense(12, activation="relu")(layers.Flatten()(x))
    mean, log_variance = layers.Dense(2, name="z_mean")(x), layers.Dense(2, name="z_log_var")(x)
    return keras.Model(inputs, [mean, log_variance, Sampling()([mean, log_variance])], name="encoder")


def vae_decoder():
    inputs = keras.Input((2,))
    x = layers.Reshape((4, 4, 12))(layers.Dense(4 * 4 * 12, activation="relu")(inputs))
    x = layers.Conv2DTranspose(12, 3, activation="relu", strides=2, padding="same")(x)
    x = layers.Conv2DTranspose(8, 3, activation="relu", strides=2, padding="same")(x)
    return keras.Model(inputs, layers.Conv2DTranspose(1, 3, activation="sigmoid", padding="same")(x), name="decoder")


class VAE(keras.Model):
    """An encoder and a decoder without a `call`, as published; trains on images alone."""

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        mean, log_variance, z = self.encoder(x, training=training)
        error = ops.mean(ops.square(x - self.decoder(z, training=training)))
        return error - 0.005 * ops.mean(1 + log_variance - ops.square(mean) - ops.exp(log_variance))

    def call(self, x):  # what `fit` wants, and nobody else
        return self.decoder(self.encoder(x)[0])


def _fit(wrapper, inputs, callbacks):
    """One epoch of a wrapper around what was pruned, clustered or quantized."""
    options = {} if keras.backend.backend() == "jax" else {"jit_compile": False}
    wrapper.compile(keras.optimizers.SGD(1e-3), **options)
    wrapper.fit(inputs, batch_size=8, epochs=1, verbose=0, callbacks=callbacks)
    return [value for values in wrapper.history.history.values() for value in values]


@architecture(
    "generative",
    images(16, 16, 1),
    "own_step",
    "random",
    train=lambda encoder, x, callbacks: _fit(VAE(encoder, vae_decoder()), x, callbacks),
)
def vae_encoder_of_wrapper():
    """The inner network of a wrapper that has its own way to train; one output is random."""
    return vae_encoder()


@register
class WholeVAE(keras.Model):
    """A VAE that can be called: reconstructions without noise."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder = vae_encoder(), vae_decoder()

    def call(self, x):
        return self.decoder(self.encoder(x)[0])

    def train_step(self, data):
        import tensorflow as tf

        data = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            mean, log_variance, z = self.encoder(data)
            loss = ops.mean(ops.square(data - self.decoder(z)))
            loss = loss - 0.005 * ops.mean(1 + log_variance - ops.square(mean) - ops.exp(log_variance))
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_weights), self.trainable_weights, strict=True)
        )
        return {"loss": loss}


@architecture("generative", images(16, 16, 1), "subclassed", "own_step", "random", backends=("tensorflow",))
def vae():
    model = WholeVAE()
    model(np.zeros((1, 16, 16, 1), "float32"))
    return model


def _discriminator(shape=(16, 16, 1)):
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(8, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2D(12, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(1, activation="sigmoid"),
        ],
        name="discriminator",
    )


class GAN(keras.Model):
    """A generator that a fixed discriminator teaches."""

    def __init__(self, generator):
        super().__init__()
        self.generator, self.discriminator = generator, _discriminator()
        self.discriminator.trainable = False

    def call(self, noise):
        return self.generator(noise)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return -ops.mean(ops.log(self.discriminator(self.generator(x, training=training)) + 1e-6))


@architecture(
    "generative", vectors(12), "own_step", train=lambda generator, x, callbacks: _fit(GAN(generator), x, callbacks)
)
def dcgan_generator():
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(4 * 4 * 12),
            layers.Reshape((4, 4, 12)),
            layers.Conv2DTranspose(12, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2DTranspose(16, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2D(1, 5, padding="same", activation="sigmoid"),
        ],
        name="generator",
    )


@architecture("generative", images(16, 16, 1))
def dcgan_discriminator():
    return _discriminator()


@architecture("generative", together(images(16, 16, 1), vectors(5)))
def conditional_discriminator():
    """Images and their classes, spread over the image by operations."""
    image, label = keras.Input((16, 16, 1)), keras.Input((5,))
    plane = ops.reshape(ops.repeat(label, 16 * 16, axis=1), (-1, 5, 16, 16))
    x = layers.Concatenate()([image, ops.transpose(plane, (0, 2, 3, 1))])
    for filters in (8, 12):
        x = layers.LeakyReLU(negative_slope=0.2)(layers.Conv2D(filters, 3, strides=2, padding="same")(x))
    return keras.Model([image, label], layers.Dense(1)(layers.GlobalMaxPooling2D()(x)))


@register
class ReflectionPadding(layers.Layer):
    def __init__(self, padding=(1, 1), **kwargs):
        super().__init__(**kwargs)
        self.padding = tuple(padding)

    def call(self, x):
        height, width = self.padding
        return ops.pad(x, [[0, 0], [height, height], [width, width], [0, 0]], mode="reflect")

    def get_config(self):
        return {**super().get_config(), "padding": self.padding}


@architecture("generative", images(24, 24, 3, low=-1.0))
def cyclegan_generator():
    """Reflected borders, instance normalization, residual blocks, transposed convolutions."""
    inputs = keras.Input((24, 24, 3))
    gain = keras.initializers.RandomNormal(1.0, 0.02)

    def normalized(x):
        return layers.GroupNormalization(groups=x.shape[-1], gamma_initializer=gain)(x)

    x = layers.Conv2D(8, 7, use_bias=False)(ReflectionPadding((3, 3))(inputs))
    x = layers.Activation("relu")(normalized(x))
    for filters in (12, 16):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.Activation("relu")(normalized(x))
    y = normalized(layers.Conv2D(16, 3, use_bias=False)(ReflectionPadding()(x)))
    y = normalized(layers.Conv2D(16, 3, use_bias=False)(ReflectionPadding()(layers.Activation("relu")(y))))
    x = layers.add([x, y])
    for filters in (12, 8):
        x = layers.Conv2DTranspose(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.Activation("relu")(normalized(x))
    x = layers.Conv2D(3, 7)(ReflectionPadding((3, 3))(x))
    return keras.Model(inputs, layers.Activation("tanh")(x))


@register
class MaskedConv(layers.Layer):
    """A convolution that sees no later pixels: it masks the kernel of a layer that it owns."""

    def __init__(self, mask_type, **kwargs):
        super().__init__()
        self.mask_type, self.options = mask_type, kwargs
        self.convolution = layers.Conv2D(**kwargs)

    def build(self, input_shape):
        self.convolution.build(input_shape)
        shape = self.convolution.kernel.shape
        mask = np.zeros(shape, "float32")
        mask[: shape[0] // 2] = 1.0
        mask[shape[0] // 2, : shape[1] // 2] = 1.0
        if self.mask_type == "B":
            mask[shape[0] // 2, shape[1] // 2] = 1.0
        self.mask = mask
        self.built = True

    def call(self, inputs):
        self.convolution.kernel.assign(self.convolution.kernel * self.mask)
        return self.convolution(inputs)

    def get_config(self):
        return {"mask_type": self.mask_type, **self.options}


@architecture("generative", images(12, 12, 1), "composite")
def pixel_cnn():
    """Masked convolutions in residual blocks."""
    inputs = keras.Input((12, 12, 1))
    x = MaskedConv("A", filters=12, kernel_size=7, activation="relu", padding="same")(inputs)
    for _ in range(2):
        y = layers.Conv2D(12, 1, activation="relu")(x)
        y = MaskedConv("B", filters=6, kernel_size=3, activation="relu", padding="same")(y)
        x = layers.add([x, layers.Conv2D(12, 1, activation="relu")(y)])
    x = MaskedConv("B", filters=12, kernel_size=1, activation="relu", padding="valid")(x)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))


@architecture("generative", vectors(27))
def nerf():
    """A deep multi-layer perceptron whose input comes in again in the middle."""
    inputs = keras.Input((27,))
    x = inputs
    for index in range(6):
        x = layers.Dense(24, activation="relu")(x)
        if index == 3:
            x = layers.concatenate([x, inputs], axis=-1)
    return keras.Model(inputs, layers.Dense(4)(x))


@architecture(
    "generative", together(images(16, 16, 3), lambda n, g: g.uniform(0.02, 0.9, (n, 1, 1, 1)).astype("float32"))
)
def diffusion_unet():
    """A denoiser: sinusoidal embeddings of the noise's level, residual blocks, skips."""
    image, level = keras.Input((16, 16, 3)), keras.Input((1, 1, 1))
    speeds = np.exp(np.linspace(np.log(1.0), np.log(100.0), 6)).astype("float32") * 2 * np.pi
    angles = ops.multiply(level, speeds)
    embedding = ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=3)
    embedding = layers.UpSampling2D(16, interpolation="nearest")(embedding)
    x = layers.Concatenate()([layers.Conv2D(8, 1)(image), embedding])
    skips = []

    def block(x, width):
        start = x if x.shape[3] == width else layers.Conv2D(width, 1)(x)
        x = layers.BatchNormalization(center=False, scale=False)(x)
        x = layers.Conv2D(width, 3, padding="same", activation="swish")(x)
        return layers.Add()([layers.Conv2D(width, 3, padding="same")(x), start])

    for width in (8, 12):
        x = block(x, width)
        skips.append(x)
        x = layers.AveragePooling2D(2)(x)
    x = block(x, 16)
    for width in (12, 8):
        x = layers.UpSampling2D(2, interpolation="bilinear")(x)
        x = block(layers.Concatenate()([x, skips.pop()]), width)
    return keras.Model([image, level], layers.Conv2D(3, 1)(x))


@register
class VectorQuantizer(layers.Layer):
    """Replaces each vector by the nearest of a codebook of its own."""

    def __init__(self, count, width, **kwargs):
        super().__init__(**kwargs)
        self.count, self.width = count, width

    def build(self, input_shape):
        self.embeddings = self.add_weight(
            shape=(self.width, self.count), initializer=keras.initializers.RandomNormal(0.0, 0.5), name="codes"
        )
        self.built = True

    def call(self, x):
        flat = ops.reshape(x, (-1, self.width))
        similar = ops.matmul(flat, self.embeddings)
        distances = ops.sum(flat**2, axis=1, keepdims=True) + ops.sum(self.embeddings**2, axis=0) - 2 * similar
        chosen = ops.one_hot(ops.argmin(distances, axis=1), self.count)
        quantized = ops.reshape(ops.matmul(chosen, ops.transpose(self.embeddings)), (-1, *x.shape[1:]))
        self.add_loss(0.25 * ops.mean((ops.stop_gradient(quantized) - x) ** 2))
        return x + ops.stop_gradient(quantized - x)

    def get_config(self):
        return {**super().get_config(), "count": self.count, "width": self.width}


@architecture("generative", images(16, 16, 1), "composite")
def vq_vae():
    inputs = keras.Input((16, 16, 1))
    x = layers.Conv2D(8, 3, activation="relu", strides=2, padding="same")(inputs)
    x = layers.Conv2D(4, 1, padding="same")(layers.Conv2D(12, 3, activation="relu", strides=2, padding="same")(x))
    x = VectorQuantizer(16, 4, name="quantizer")(x)
    x = layers.Conv2DTranspose(12, 3, activation="relu", strides=2, padding="same")(x)
    x = layers.Conv2DTranspose(8, 3, activation="relu", strides=2, padding="same")(x)
    return keras.Model(inputs, layers.Conv2DTranspose(1, 3, padding="same")(x))


@register
class AdaIN(layers.Layer):
    """Gives features the mean and deviation that a style has: two inputs, arithmetic only."""

    def call(self, inputs):
        content, style = inputs
        mean, variance = ops.moments(content, axes=(1, 2), keepdims=True)
        target_mean, target_variance = ops.moments(style, axes=(1, 2), keepdims=True)
        return ops.sqrt(target_variance + 1e-3) * (content - mean) / ops.sqrt(variance + 1e-3) + target_mean


@architecture("generative", together(images(16, 16, 3), images(16, 16, 3)), "shared")
def style_transfer():
    content, style = keras.Input((16, 16, 3)), keras.Input((16, 16, 3))
    encoder = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.Conv2D(12, 3, strides=2, padding="same", activation="relu"),
        ]
    )
    x = AdaIN()([encoder(content), encoder(style)])
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.UpSampling2D(2)(x))
    return keras.Model([content, style], layers.Conv2D(3, 3, padding="same")(x))
