"""Export to the files that real runtimes run."""

from keras_mot.export._runner import LiteRTRunner
from keras_mot.export._verification import ExportVerificationError
from keras_mot.export.litert import LiteRTExport, export_litert

__all__ = ["ExportVerificationError", "LiteRTExport", "LiteRTRunner", "export_litert"]
