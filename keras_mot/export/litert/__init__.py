"""LiteRT (`.tflite`): the exporter, and what reads and runs its files."""
