"""ONNX files, which ONNX Runtime and others run: integers between QuantizeLinear and DequantizeLinear, or floats."""
