"""Sends a signal to a process and to all that it has started; standard input says "PID NUMBER"."""

import _signal  # The C part alone: signal itself takes as long to import as Python to start.
import os


def processes():
    """Return (pid, parent, group) of all processes there are."""
    found = []
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        names = []
    for name in names:
        try:
            with open("/proc/" + name + "/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()  # The name may hold anything.
        except OSError:
            continue  # It has ended.
        found.append((int(name), int(fields[1]), int(fields[2])))
    if not found:  # No Linux.
        with os.popen("ps -A -o pid= -o ppid= -o pgid=") as lines:
            for line in lines:
                pid, parent, group = map(int, line.split())
                found.append((pid, parent, group))
    return found


def family(first):
    """Return a process and its descendants, the elder ones first, and who is of its own group."""
    children = {}  # type: dict[int, list[int]]
    members = []
    for pid, parent, group in processes():
        children.setdefault(parent, []).append(pid)
        if group == first:
            members.append(pid)
    found = [first]
    for pid in found:
        found += [child for child in children.get(pid, ()) if child not in found]
    return found + [pid for pid in members if pid not in found]


def send(pid, number):
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # It has ended; or it runs as another user by now, through sudo for example.


def main():
    pid, number = map(int, os.read(0, 100).split())
    if number != _signal.SIGKILL:
        for one in family(pid):
            send(one, number)
        return
    stopped = []
    while True:  # What is stopped starts nothing more.
        new = [one for one in family(pid) if one not in stopped]
        if not new:
            break
        for one in new:
            send(one, _signal.SIGSTOP)
        stopped += new
    for one in stopped:
        send(one, number)


main()
