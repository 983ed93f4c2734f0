"""The contestants: each is a program that works on request (see worker.py)."""
