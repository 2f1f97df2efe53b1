"""Export to the files that real runtimes run."""

from keras_mot.export.litert.exporting import LiteRTExport, export_litert
from keras_mot.export.litert.runner import LiteRTRunner
from keras_mot.export.litert.verification import ExportVerificationError
from keras_mot.export.protocol import Export

__all__ = ["Export", "ExportVerificationError", "LiteRTExport", "LiteRTRunner", "export_litert"]
