"""LiteRT Quantizer's static int8 of a float `.tflite` file, run by the interpreter of an environment that has it.

Arguments: the float file, a `.npy` of calibration samples, and the path of the integer file.
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe

source, samples, target = sys.argv[1:]
((signature, tensors),) = Interpreter(source).get_signature_list().items()
(name,) = tensors["inputs"]
engine = quantizer.Quantizer(source)
engine.load_quantization_recipe(recipe.static_wi8_ai8())
ranges = engine.calibrate({signature: [{name: sample[None]} for sample in np.load(samples)]}, num_threads=2)
engine.quantize(ranges).export_model(target)
