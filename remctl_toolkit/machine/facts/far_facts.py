"""Facts about this machine: addresses, routes, system, disks, memory and so on.

All are plain data; a fact that is not available is None.
"""

import os
import sys
import time

TOOL_TIMEOUT = 30  # seconds
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

# statvfs() of these would wait for ever for a server that does not answer.
OF_THE_NETWORK = ("9p", "afs", "ceph", "cifs", "fuse.", "gfs", "gluster", "lustre", "nfs", "smb")

# From names of facts to those of their sources.
ADDRESS = {"family": "family", "address": "local", "prefix": "prefixlen", "scope": "scope"}
ROUTE = {
    "destination": "dst",
    "gateway": "gateway",
    "interface": "dev",
    "source": "prefsrc",
    "metric": "metric",
}
MEMORY = {
    "total": "MemTotal",
    "available": "MemAvailable",
    "free": "MemFree",
    "buffers": "Buffers",
    "cached": "Cached",
    "swap_total": "SwapTotal",
    "swap_free": "SwapFree",
}

FINDERS = {}  # type: dict[str, object]


class Unavailable(Exception):
    """A fact is not available; the text has the reason."""


def gather(names=None):
    """Return facts by their names, or all; "reasons" has the reason for each that is None."""
    found = {}
    reasons = {}
    for name in FINDERS if names is None else names:
        try:
            found[name] = FINDERS[name]()
        except Unavailable as error:
            found[name], reasons[name] = None, str(error)
        except Exception as error:  # A failure must not affect the other facts.
            found[name], reasons[name] = None, f"{type(error).__name__}: {error}"
    found["reasons"] = reasons
    return found


def fact(finder):
    """Register a fact; return a function that returns None if `finder` raises."""
    name = finder.__name__
    FINDERS[name] = finder

    def found():
        return gather([name])[name]

    found.__name__ = found.__qualname__ = name
    return found


# -- Programs -------------------------------------------------------------------------------------


def check_output(argv, input=b"", **keywords):
    """Run a program and return its output; keywords are those of subprocess.run().

    Invalid UTF-8 is decoded as by os.fsdecode().
    """
    import subprocess

    keywords.setdefault("check", True)
    done = subprocess.run(argv, input=input, stdout=subprocess.PIPE, **keywords)
    return done.stdout.decode("utf-8", "surrogateescape")


def output_lines(argv, input=b"", **keywords):
    """Return the lines of `check_output()`."""
    lines = check_output(argv, input, **keywords).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def lines_of(argv):
    """Return the lines that a program prints, in English."""
    import subprocess

    path = os.environ.get("PATH", os.defpath) + ":" + SYSTEM_FOLDERS
    environment = dict(os.environ, PATH=path, LC_ALL="C")
    try:
        return output_lines(argv, stderr=subprocess.PIPE, env=environment, timeout=TOOL_TIMEOUT)
    except FileNotFoundError:
        raise Unavailable(f"{argv[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().splitlines()
        why = said[-1] if said else f"status {error.returncode}"
        raise Unavailable(f"{argv[0]}: {why}") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(str(error)) from None


def json_of(argv):
    """Return the JSON output of a program; an empty list if it prints nothing."""
    import json

    try:
        return json.loads("".join(lines_of(argv)) or "[]")
    except ValueError:
        raise Unavailable(f"{argv[0]} did not print JSON") from None


def renamed(found, keys):
    """Return a dictionary with other keys; values that are missing are None."""
    return {name: found.get(key) for name, key in keys.items()}


def text_of(path):
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


# -- The network ----------------------------------------------------------------------------------


@fact
def addresses():
    return [
        dict(renamed(address, ADDRESS), interface=interface["ifname"])
        for interface in json_of(["ip", "-json", "address", "show"])
        for address in interface.get("addr_info", ())
        if "local" in address
    ]


@fact
def routes():
    return [
        dict(renamed(route, ROUTE), family=family)
        for option, family in (("-4", "inet"), ("-6", "inet6"))
        for route in json_of(["ip", "-json", option, "route", "show"])
    ]


def ip():
    """Return this machine's address on its default route; None without one."""
    import socket

    places = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))  # RFC 5737, 3849
    for family, place in places:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((place, 9))  # Sends nothing.
                return probe.getsockname()[0]
        except OSError:
            continue
    return None


# -- The machine ----------------------------------------------------------------------------------


def python_version(short=False):
    """Return the version of this Python, as a list of three numbers, or of two."""
    return list(sys.version_info[: 2 if short else 3])


def python_executable():
    """Return the path of this Python."""
    try:
        return os.readlink("/proc/self/exe")  # sys.executable may be a bare name.
    except OSError:
        return sys.executable


@fact
def system():
    name, node, release, version, machine = os.uname()
    try:
        uptime = float(text_of("/proc/uptime").split()[0])
    except OSError:
        uptime = None
    try:
        load = list(os.getloadavg())
    except OSError:
        load = None
    return {
        "hostname": node,
        "kernel": name,
        "release": release,
        "version": version,
        "machine": machine,
        "distribution": distribution(),
        "cpus": os.cpu_count(),
        "load": load,
        "uptime": uptime,
        "boot_time": None if uptime is None else time.time() - uptime,
        "python_version": tuple(python_version()),
        "python_executable": python_executable(),
    }


def distribution():
    """Return the fields of os-release(5); None if there is no such file."""
    import shlex

    for path in ("/etc/os-release", "/usr/lib/os-release"):
        if os.path.exists(path):
            break
    else:
        return None
    found = {}
    for line in text_of(path).splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not name.startswith("#"):
            try:
                found[name.strip().lower()] = " ".join(shlex.split(value))
            except ValueError:
                continue  # It is malformed.
    return found


@fact
def disks():
    lines = [line.partition("\t") for line in text_of("/proc/filesystems").splitlines()]
    of_the_kernel = {name for nodev, _, name in lines if nodev} - {"overlay", "tmpfs", "zfs"}
    found = {}
    for line in text_of("/proc/self/mounts").splitlines():
        device, place, kind, options = (plain(field) for field in line.split(" ")[:4])
        is_remote = kind.startswith(OF_THE_NETWORK)
        if kind in of_the_kernel and not is_remote:
            continue
        found[place] = {  # A later mount hides an earlier one.
            "device": device,
            "mountpoint": place,
            "type": kind,
            "options": options.split(","),
            "size": None,
            "used": None,
            "available": None,
        }
        if not is_remote:
            found[place].update(space_of(place))
    return list(found.values())


def plain(field):
    """Return a field of /proc/mounts without its escapes."""
    octets = os.fsencode(field)
    for code in (b"040", b"011", b"012", b"134"):
        octets = octets.replace(b"\\" + code, bytes([int(code, 8)]))
    return os.fsdecode(octets)


def space_of(place):
    try:
        found = os.statvfs(place)
    except OSError:
        return {}
    return {
        "size": found.f_blocks * found.f_frsize,
        "used": (found.f_blocks - found.f_bfree) * found.f_frsize,
        "available": found.f_bavail * found.f_frsize,
    }


@fact
def memory():
    values = {}
    for line in text_of("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        number, *unit = value.split()
        values[name] = int(number) * (1024 if unit == ["kB"] else 1)
    return renamed(values, MEMORY)


@fact
def users():
    import pwd

    return [
        {
            "name": entry.pw_name,
            "uid": entry.pw_uid,
            "gid": entry.pw_gid,
            "full_name": entry.pw_gecos.split(",")[0],
            "home": entry.pw_dir,
            "shell": entry.pw_shell,
        }
        for entry in pwd.getpwall()
    ]


# -- Packages -------------------------------------------------------------------------------------


@fact
def packages():
    reasons = []
    for finder in (packages_of_dpkg, packages_of_rpm, packages_of_apk):
        try:
            return finder()
        except (Unavailable, OSError) as error:
            reasons.append(str(error))
    raise Unavailable("; ".join(reasons))


def packages_of_dpkg():
    form = "${db:Status-Abbrev}\\t${Package}\\t${Version}\\t${Architecture}\\n"
    lines = lines_of(["dpkg-query", "--show", "--showformat", form])
    # The second letter is "i" if the package is installed.
    return [package(*line.split("\t")[1:]) for line in lines if line[1:2] == "i"]


def packages_of_rpm():
    form = "%{NAME}\\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\t%{ARCH}\\n"
    lines = lines_of(["rpm", "--query", "--all", "--queryformat", form])
    return [package(*line.split("\t")) for line in lines]


def packages_of_apk(path="/lib/apk/db/installed"):
    try:
        text = text_of(path)
    except FileNotFoundError:
        raise Unavailable("apk is not installed") from None
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(":", 1) for line in block.splitlines() if ":" in line)
        if "P" in fields:
            found.append(package(fields["P"], fields.get("V"), fields.get("A")))
    return found


def package(name, version, architecture):
    return {"name": name, "version": version, "architecture": architecture}
