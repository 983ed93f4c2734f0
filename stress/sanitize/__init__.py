"""The whole test suite under the sanitizers: python -m stress.sanitize, or ./run sanitize.

modes.py      the compiler flags and tests of each mode
place.py      a copy of the checkout to build and test in
patience.py   a plugin that makes pytest-xdist wait for its workers
*.txt         suppressions for the interpreter and Kerberos, with a reason for each line
"""
