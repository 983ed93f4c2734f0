"""The whole test suite under the sanitizers: python -m stress.sanitize, or ./run sanitize.

modes.py      what each mode compiles with, and runs
place.py      a copy of the checkout to build and to test in
patience.py   a plugin that has pytest-xdist wait for its workers
*.txt         what is the interpreter's or Kerberos's own, with the reason for each line
"""
