"""Sparsely encoded weights."""
