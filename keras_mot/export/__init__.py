"""Export to the files that real runtimes run."""

from keras_mot.export.litert.ethos_u.compiling import EthosUFile, compile_ethos_u
from keras_mot.export.litert.ethos_u.estimate import EthosUEstimate
from keras_mot.export.litert.exporting import export_litert
from keras_mot.export.litert.micro.runner import MicroRunner
from keras_mot.export.litert.micro.sources import MicroSources, write_micro_sources
from keras_mot.export.litert.result import LiteRTExport
from keras_mot.export.litert.runner import LiteRTRunner
from keras_mot.export.litert.verification import ExportVerificationError
from keras_mot.export.onnx.exporting import OnnxExport, export_onnx
from keras_mot.export.onnx.openvino_runner import OpenVINORunner
from keras_mot.export.onnx.runner import OnnxRunner
from keras_mot.export.packing import Package, pack, unpack
from keras_mot.export.protocol import Export

__all__ = [
    "Export",
    "ExportVerificationError",
    "LiteRTExport",
    "LiteRTRunner",
    "MicroRunner",
    "OnnxExport",
    "OnnxRunner",
    "OpenVINORunner",
    "Package",
    "compile_ethos_u",
    "export_litert",
    "export_onnx",
    "pack",
    "unpack",
    "write_micro_sources",
]
