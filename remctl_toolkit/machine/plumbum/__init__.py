"""Machines for plumbum."""
