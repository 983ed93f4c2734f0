"""Measure the speed of the bindings and of alternatives: ./run bench."""
