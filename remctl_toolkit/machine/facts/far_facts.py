"""Finds out what kind of machine this is: addresses, routes, system, disks, memory and so on.

Everything is plain data; what cannot be had is None.
"""

import os
import socket
import struct
import sys
import time

TOOL_TIMEOUT = 30  # seconds
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

SIOCGIFCONF = 0x8912  # ioctl_list(2), netdevice(7)
SIOCGIFNETMASK = 0x891B
ROUTE_IS_UP = 0x1  # route(8), linux/route.h, linux/ipv6_route.h
ROUTE_IS_LOCAL = 0x80000000
SCOPES = {0x00: "global", 0x10: "host", 0x20: "link", 0x40: "site"}

# A server that does not answer would keep us for ever.
OF_THE_NETWORK = ("9p", "afs", "ceph", "cifs", "fuse.", "gfs", "gluster", "lustre", "nfs", "smb")


class Unavailable(Exception):
    """A fact cannot be had; the text says why."""


def gather(names=None):
    """Return facts by their names, or all; "reasons" says why which of them are None."""
    found = {}
    reasons = {}
    for name in FINDERS if names is None else names:
        try:
            found[name] = FINDERS[name]()
        except Unavailable as error:
            found[name], reasons[name] = None, str(error)
        except Exception as error:  # Some systems have what no one thought of: the others count.
            found[name], reasons[name] = None, f"{type(error).__name__}: {error}"
    found["reasons"] = reasons
    return found


def addresses():
    """Return the addresses of all interfaces; None if they cannot be had."""
    return gather(["addresses"])["addresses"]


def routes():
    """Return the routes; None if they cannot be had."""
    return gather(["routes"])["routes"]


def system():
    """Return what runs here; None if it cannot be had."""
    return gather(["system"])["system"]


def disks():
    """Return what is mounted, and how full it is; None if it cannot be had."""
    return gather(["disks"])["disks"]


def memory():
    """Return how much memory there is, in octets; None if it cannot be had."""
    return gather(["memory"])["memory"]


def users():
    """Return the accounts; None if they cannot be had."""
    return gather(["users"])["users"]


def packages():
    """Return the packages that are installed; None if they cannot be had."""
    return gather(["packages"])["packages"]


def ip():
    """Return the address that this machine is seen by; None if it has no route to anywhere."""
    places = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))  # RFC 5737, 3849
    for family, place in places:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((place, 9))  # Sends nothing.
                return probe.getsockname()[0]
        except OSError:
            continue
    return None


def python_version():
    """Return the version of the Python here, as three numbers."""
    return tuple(sys.version_info[:3])


def python_executable():
    """Return the path of the Python here."""
    try:
        return os.readlink("/proc/self/exe")  # sys.executable need not have a folder.
    except OSError:
        return sys.executable


# -- Tools ----------------------------------------------------------------------------------------


def output_of(argv):
    """Return what a program prints, in English."""
    import subprocess

    path = os.environ.get("PATH", os.defpath) + ":" + SYSTEM_FOLDERS
    environment = dict(os.environ, PATH=path, LC_ALL="C")
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=TOOL_TIMEOUT,
        )
    except FileNotFoundError:
        raise Unavailable(f"no {argv[0]} here") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(str(error)) from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise Unavailable(f"{argv[0]}: {said[-1] if said else f'status {done.returncode}'}")
    return done.stdout.decode("utf-8", "surrogateescape")


def json_of(argv):
    import json

    try:
        return json.loads(output_of(argv) or "[]")
    except ValueError:
        raise Unavailable(f"{argv[0]} does not speak JSON") from None


def first_of(*finders):
    """Return what the first finder finds that finds anything."""
    reasons = []
    for finder in finders:
        try:
            return finder()
        except (Unavailable, OSError) as error:
            reasons.append(str(error))
    raise Unavailable("; ".join(reasons))


def text_of(path):
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


# -- The network ----------------------------------------------------------------------------------


def find_addresses():
    return first_of(addresses_by_ip, addresses_by_kernel)


def addresses_by_ip():
    return [
        {
            "interface": interface["ifname"],
            "family": address["family"],
            "address": address["local"],
            "prefix": address["prefixlen"],
            "scope": address.get("scope"),
        }
        for interface in json_of(["ip", "-json", "address", "show"])
        for address in interface.get("addr_info", ())
        if "local" in address
    ]


def addresses_by_kernel():
    return inet_addresses() + inet6_addresses()


def inet_addresses():
    import array
    import fcntl

    size = 40 if struct.calcsize("P") == 8 else 32  # of a struct ifreq
    buffer = array.array("B", bytes(size * 1024))
    start, length = buffer.buffer_info()
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("iP", length, start)
        filled = struct.unpack("iP", fcntl.ioctl(probe, SIOCGIFCONF, request))[0]
        for offset in range(0, filled, size):
            entry = buffer[offset : offset + size].tobytes()
            mask = fcntl.ioctl(probe, SIOCGIFNETMASK, entry)[20:24]
            address = socket.inet_ntoa(entry[20:24])
            found.append(
                {
                    "interface": os.fsdecode(entry[:16].split(b"\0")[0]).split(":")[0],
                    "family": "inet",
                    "address": address,
                    "prefix": bin(int.from_bytes(mask, "big")).count("1"),
                    "scope": "host" if address.startswith("127.") else "global",
                }
            )
    return found


def inet6_addresses():
    if not os.path.exists("/proc/net/if_inet6"):
        return []  # without IPv6
    found = []
    for line in text_of("/proc/net/if_inet6").splitlines():
        address, _, prefix, scope, _, name = line.split()
        found.append(
            {
                "interface": name,
                "family": "inet6",
                "address": socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address)),
                "prefix": int(prefix, 16),
                "scope": SCOPES.get(int(scope, 16)),
            }
        )
    return found


def find_routes():
    return first_of(routes_by_ip, routes_by_kernel)


def routes_by_ip():
    return [
        {
            "family": family,
            "destination": route["dst"],
            "gateway": route.get("gateway"),
            "interface": route.get("dev"),
            "source": route.get("prefsrc"),
            "metric": route.get("metric"),
        }
        for option, family in (("-4", "inet"), ("-6", "inet6"))
        for route in json_of(["ip", "-json", option, "route", "show"])
    ]


def routes_by_kernel():
    found = [route_of(line.split()) for line in text_of("/proc/net/route").splitlines()[1:]]
    if os.path.exists("/proc/net/ipv6_route"):
        lines = text_of("/proc/net/ipv6_route").splitlines()
        found += [route6_of(line.split()) for line in lines]
    return [route for route in found if route is not None]


def route_of(fields):
    interface, destination, gateway, flags, _, _, metric, mask = fields[:8]
    if not int(flags, 16) & ROUTE_IS_UP:
        return None
    places = [struct.pack("=I", int(each, 16)) for each in (destination, gateway, mask)]
    return route(
        "inet",
        socket.inet_ntoa(places[0]),
        bin(int(mask, 16)).count("1"),
        socket.inet_ntoa(places[1]) if any(places[1]) else None,
        interface,
        int(metric),
    )


def route6_of(fields):
    destination, prefix, _, _, gateway, metric, _, _, flags, interface = fields[:10]
    place, through = bytes.fromhex(destination), bytes.fromhex(gateway)
    is_up = int(flags, 16) & ROUTE_IS_UP and not int(flags, 16) & ROUTE_IS_LOCAL
    if not is_up or interface == "lo" or place[0] == 0xFF:  # That is for many.
        return None
    return route(
        "inet6",
        socket.inet_ntop(socket.AF_INET6, place),
        int(prefix, 16),
        socket.inet_ntop(socket.AF_INET6, through) if any(through) else None,
        interface,
        int(metric, 16),
    )


def route(family, address, prefix, gateway, interface, metric):
    whole = 32 if family == "inet" else 128
    destination = address if prefix == whole else f"{address}/{prefix}"
    return {
        "family": family,
        "destination": destination if prefix else "default",
        "gateway": gateway,
        "interface": interface,
        "source": None,
        "metric": metric or None,
    }


# -- The machine ----------------------------------------------------------------------------------


def find_system():
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
        "python_version": python_version(),
        "python_executable": python_executable(),
    }


def distribution():
    """Return what os-release(5) says; None if there is no such file."""
    import shlex

    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            lines = text_of(path).splitlines()
        except OSError:
            continue
        found = {}
        for line in lines:
            name, is_setting, value = line.partition("=")
            if is_setting and not name.startswith("#"):
                try:
                    found[name.strip().lower()] = " ".join(shlex.split(value))
                except ValueError:
                    continue  # not as it must be
        return found
    return None


def find_disks():
    of_the_kernel = set()
    for line in text_of("/proc/filesystems").splitlines():
        nodev, _, name = line.partition("\t")
        if nodev:
            of_the_kernel.add(name)
    found = {}
    for line in text_of("/proc/self/mounts").splitlines():
        device, place, kind, options = (plain(field) for field in line.split(" ")[:4])
        is_remote = kind.startswith(OF_THE_NETWORK)
        if kind in of_the_kernel and not is_remote and kind not in ("overlay", "tmpfs", "zfs"):
            continue
        found[place] = {  # What is mounted on top hides what was there.
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


def find_memory():
    values = {}
    for line in text_of("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        number, *unit = value.split()
        values[name] = int(number) * (1024 if unit == ["kB"] else 1)
    names = {
        "total": "MemTotal",
        "available": "MemAvailable",
        "free": "MemFree",
        "buffers": "Buffers",
        "cached": "Cached",
        "swap_total": "SwapTotal",
        "swap_free": "SwapFree",
    }
    return {name: values.get(key) for name, key in names.items()}


def find_users():
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


def find_packages():
    return first_of(packages_of_dpkg, packages_of_rpm, packages_of_apk)


def packages_of_dpkg():
    form = "${db:Status-Abbrev}\\t${Package}\\t${Version}\\t${Architecture}\\n"
    lines = output_of(["dpkg-query", "--show", "--showformat", form]).splitlines()
    # "ii" or "hi": it is to be there, or to stay as it is, and is there.
    return [package(*line.split("\t")[1:]) for line in lines if line[1:2] == "i"]


def packages_of_rpm():
    form = "%{NAME}\\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\t%{ARCH}\\n"
    lines = output_of(["rpm", "--query", "--all", "--queryformat", form]).splitlines()
    return [package(*line.split("\t")) for line in lines]


def packages_of_apk(path="/lib/apk/db/installed"):
    try:
        text = text_of(path)
    except FileNotFoundError:
        raise Unavailable("no apk here") from None
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(":", 1) for line in block.splitlines() if ":" in line)
        if "P" in fields:
            found.append(package(fields["P"], fields.get("V"), fields.get("A")))
    return found


def package(name, version, architecture):
    return {"name": name, "version": version, "architecture": architecture}


FINDERS = {
    "addresses": find_addresses,
    "routes": find_routes,
    "system": find_system,
    "disks": find_disks,
    "memory": find_memory,
    "users": find_users,
    "packages": find_packages,
}
