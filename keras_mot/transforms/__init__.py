"""Weight transforms: small Keras layers whose input is a weight and whose output is the weight that is used."""

from keras_mot.transforms._palette_transform import PaletteTransform
from keras_mot.transforms.base import WeightTransform
from keras_mot.transforms.codebook import Codebook
from keras_mot.transforms.fake_quantize import FakeQuantize
from keras_mot.transforms.mask import Mask
from keras_mot.transforms.soft_codebook import SoftCodebook

__all__ = ["Codebook", "FakeQuantize", "Mask", "SoftCodebook", "WeightTransform"]
