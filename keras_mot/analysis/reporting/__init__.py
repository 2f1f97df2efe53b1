"""A report of one page: what was gained, what it cost, where, and how to repeat it."""

from keras_mot.analysis.reporting.contents import Advice, KernelChange, ModelReport, Variant
from keras_mot.analysis.reporting.measured import report

__all__ = ["Advice", "KernelChange", "ModelReport", "Variant", "report"]
