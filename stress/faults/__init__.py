"""Make every call in the C sources that can fail do so once: python -m stress.faults.

calls.py      lists the calls, their failures and the allowed outcomes
scan.py       finds them in the sources
build.py      builds the extension with a macro before each of them
faults.c      counts the calls and makes one fail; libremctl's allocations, too
scenarios.py  uses the bindings in many ways
child.py      repeats a scenario, with one failing call each time
"""
