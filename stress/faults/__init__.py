"""Every call in the C sources that can fail, made to fail once: python -m stress.faults.

calls.py      which they are, how they fail and what may come of it
scan.py       finds them in the sources
build.py      builds the extension with a macro before each of them
faults.c      counts the calls and says which one fails; libremctl's allocations, too
scenarios.py  what is done with the bindings
child.py      does it again and again, with one call failing each time
"""
