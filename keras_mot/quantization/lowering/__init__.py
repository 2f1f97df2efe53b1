"""Layers, broken down into steps that integer runtimes have kernels for."""
