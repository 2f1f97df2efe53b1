"""Weights that TFLM decodes while it runs, by its operator DECODE: encoded, chosen, put into files, and read again."""
