"""Data of users, brought into one form: what is inputs and what are labels, batches, order, names, shapes, numbers.

Every room that takes data asks here: calibration, training, measuring, comparing an export, and the command line.
"""
