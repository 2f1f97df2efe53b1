"""Pictures of what pruning, clustering and quantization do; each function returns a Matplotlib `Figure`."""

from keras_mot.analysis.plots.history import training
from keras_mot.analysis.plots.layers import drift, ranges, sensitivity
from keras_mot.analysis.plots.sizes import Point, front, latencies, layer_bytes
from keras_mot.analysis.plots.style import save, svg_of
from keras_mot.analysis.plots.weights import mask, weights

__all__ = [
    "Point",
    "drift",
    "front",
    "latencies",
    "layer_bytes",
    "mask",
    "ranges",
    "save",
    "sensitivity",
    "svg_of",
    "training",
    "weights",
]
