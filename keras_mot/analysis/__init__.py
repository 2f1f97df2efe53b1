"""What a model weighs, how sparse it is, how well and how fast its files run; and a report of it."""

from keras_mot.analysis import plots
from keras_mot.analysis._check import check
from keras_mot.analysis._drift import DriftReport, TensorDrift, measure_drift
from keras_mot.analysis._ethos_u import EthosUReport, ethos_u
from keras_mot.analysis._measure import measure, sparsity, tensor_stats
from keras_mot.analysis._sensitivity import sensitivity
from keras_mot.analysis._sizes import zipped_bytes
from keras_mot.analysis._tensors import TensorStats
from keras_mot.analysis.activation_ranges import ActivationRange, activation_ranges
from keras_mot.analysis.check_report import CheckReport, Finding
from keras_mot.analysis.measurements import Measurement, Report
from keras_mot.analysis.operator_times import OperatorTime, operator_times
from keras_mot.analysis.reporting import ModelReport, report
from keras_mot.analysis.sensitivity_report import Sensitivity, SensitivityRow

__all__ = [
    "DriftReport",
    "OperatorTime",
    "Report",
    "Sensitivity",
    "SensitivityRow",
    "activation_ranges",
    "check",
    "ethos_u",
    "measure",
    "measure_drift",
    "operator_times",
    "plots",
    "report",
    "sensitivity",
    "sparsity",
    "tensor_stats",
    "zipped_bytes",
]
