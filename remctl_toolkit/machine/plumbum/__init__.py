"""A machine as one of plumbum's remote machines."""
