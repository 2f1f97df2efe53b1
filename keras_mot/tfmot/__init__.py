"""TFMOT's names and forms, for scripts that were written for it: translated into what the other rooms have."""
