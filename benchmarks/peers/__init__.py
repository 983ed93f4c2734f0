"""The contestants: each is a program that works when it is told to (see worker.py)."""
