"""Print facts about the remctl binding that this interpreter imports: one line, KEY = VALUE, each.

    python3 probe.py GROUP PLACE

GROUP is the name of a function in GROUPS; PLACE is a JSON object with the ports of the test servers
(see Place).  The program runs under any binding and needs only the standard library.  A fact
has the same key under every binding, and a value without ports, paths and addresses.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

# Last on the path, so that nothing in the tests' folder replaces the binding.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from differences import (
    facts_arguments,
    facts_excepts,
    facts_fork,
    facts_low_level,
    facts_names,
    facts_state,
    facts_subclasses,
    facts_values,
)
from differences.facts import Facts, Place

GROUPS = {
    "names": facts_names.names,
    "signatures": facts_names.signatures,
    "arguments": facts_arguments.arguments,
    "commands": facts_arguments.commands,
    "excepts": facts_excepts.excepts,
    "states": facts_state.states,
    "timeouts": facts_state.timeouts,
    "subclasses": facts_subclasses.subclasses,
    "values": facts_values.values,
    "low-level": facts_low_level.low_level,
    "low-level-arguments": facts_low_level.arguments,
    "fork": facts_fork.python_fork,
    "fork-in-c": facts_fork.c_fork,
    "fork-twice": facts_fork.double_fork,
    "fork-and-exit": facts_fork.fork_and_exit,
    "fork-low-level": facts_fork.low_level_fork,
}


def main() -> None:
    group, place = sys.argv[1:]
    GROUPS[group](Facts(Place(**json.loads(place))))


if __name__ == "__main__":
    main()
