"""A machine over remctl: commands, functions, channels, files, tunnels, and many machines at once.

SSH's side is plumbum's SshMachine with a connection that is shared (ControlMaster), and scp.
"""

from __future__ import annotations

from ..figures import Spread, Target
from ..place import Place
from ..race import Race, count_for, run
from ..report import Answer, Bar, Row

_OURS = "machine"
_TRUE = f'{_OURS}["true"]()'
_BARE = "remctl command true"
_BARE_SHELL = "remctl command sh -c 'exec true'"
_PYTHON = "remctl command python3 -IS -c pass"
_PLUMBUM = "plumbum"
_CALL = f"{_OURS}.call()"
_CALL_PYTHON = f"{_OURS}.call(), without the line for sh"
_TUNNEL = f"{_OURS}.tunnel()"
_CHANNEL = "Channel"
_PLAIN = "a plain command's output"
_PLAIN_UP = "plain commands' input, 8 MiB each"
_UPLOAD, _DOWNLOAD = f"{_OURS}.upload()", f"{_OURS}.download()"
_SCP_UP, _SCP_DOWN = "scp, up", "scp, down"

_QUICK_ONES = {
    _TRUE: ("machine", "true"),
    _BARE: ("machine", "bare"),
    _BARE_SHELL: ("machine", "bare-shell"),
    _PLUMBUM: ("plumbum", "true"),
    _CALL: ("machine", "call"),
    _CALL_PYTHON: ("machine", "call-python"),
    _TUNNEL: ("machine", "tunnel"),
    _PYTHON: ("machine", "bare-python"),
}
_BULKY_ONES = {
    _CHANNEL: ("machine", "channel"),
    _PLAIN: ("machine", "plain"),
    _PLAIN_UP: ("machine", "plain-up"),
    _UPLOAD: ("machine", "upload"),
    _SCP_UP: ("scp", "upload"),
    _DOWNLOAD: ("machine", "download"),
    _SCP_DOWN: ("scp", "download"),
}
_MANY = 50


def ask(place: Place) -> Answer:
    """Measure."""
    with place.workers(_QUICK_ONES) as (workers, missing):
        counts = {}
        for key, worker in workers.items():
            place.progress(f"warming up {key}")
            counts[key] = count_for(worker, place.effort.seconds)
        quick = run(workers, counts, place.effort.rounds, place.progress)
    with place.workers(_BULKY_ONES) as (workers, missing_bulk):
        octets = 20_000_000 if place.effort.quick else 100_000_000
        for key, worker in workers.items():
            place.progress(f"warming up {key}")
            worker.go(octets)
        counts = dict.fromkeys(workers, octets)
        bulk = run(workers, counts, place.effort.bulk_rounds, place.progress)
    missing |= missing_bulk
    rows = [*_quick_rows(quick, missing), *_bulk_rows(bulk, octets, missing), _many_row(place)]
    keys = [key for key in _QUICK_ONES if key in quick.samples]
    bars = [Bar(key, _milliseconds(quick, key), key.startswith(_OURS)) for key in keys]
    return Answer(rows, bars, "milliseconds for one (less is better)")


def _milliseconds(found: Race, key: str) -> Spread:
    return Spread.of([1000 * seconds for seconds in found.times(key)])


def _rate(found: Race, key: str) -> Spread:
    return Spread.of([rate / 1e6 for rate in found.rates(key)])


def _quick_rows(found: Race, missing: dict[str, str]) -> list[Row]:
    ours = _milliseconds(found, _TRUE)
    what = "machine: a command, ms"
    rows = []
    for key, target in ((_BARE, None), (_BARE_SHELL, Target(1.5, at_least=False))):
        # Rates are the inverse of times.
        ratio = found.ratio(key, _TRUE)
        rows.append(Row(what, key, ours, _milliseconds(found, key), ratio, target=target))
    if _PLUMBUM in missing:
        rows.append(Row(what, _PLUMBUM, ours, target=Target(2), note=missing[_PLUMBUM]))
    else:
        times = found.ratio(_TRUE, _PLUMBUM)
        rows.append(
            Row(what, _PLUMBUM, ours, _milliseconds(found, _PLUMBUM), times, target=Target(2))
        )
    for what, key, limit, bare in (
        ("machine: a function called, ms", _CALL, 2.5, _BARE_SHELL),
        ("machine: a function called, without the line for sh, ms", _CALL_PYTHON, 6, _PYTHON),
        ("machine: request and answer through a tunnel, ms", _TUNNEL, 2, _BARE_SHELL),
    ):
        took = _milliseconds(found, key)
        target = Target(limit, at_least=False)
        rows.append(Row(what, "the limit", took, compared=took, unit="ms", target=target))
        rows.append(Row(what, bare, took, _milliseconds(found, bare), found.ratio(bare, key)))
    return rows


def _bulk_rows(found: Race, octets: int, missing: dict[str, str]) -> list[Row]:
    size = f"{octets / 1e6:.0f} MB"
    rows = [
        Row(
            f"machine: {size} through a channel, MB/s",
            _PLAIN,
            _rate(found, _CHANNEL),
            _rate(found, _PLAIN),
            found.ratio(_CHANNEL, _PLAIN),
            target=Target(0.9),
        )
    ]
    for way, ours, theirs, plain in (
        ("up", _UPLOAD, _SCP_UP, _PLAIN_UP),
        ("down", _DOWNLOAD, _SCP_DOWN, _PLAIN),
    ):
        what = f"machine: a file of {size} {way}, MB/s"
        rate = _rate(found, ours)
        rows.append(Row(what, "the limit", rate, compared=rate, unit="MB/s", target=Target(60)))
        rows.append(Row(what, plain, rate, _rate(found, plain), found.ratio(ours, plain)))
        if theirs in missing:
            rows.append(Row(what, theirs, rate, target=Target(0.5), note=missing[theirs]))
            continue
        ratio = found.ratio(ours, theirs)
        rows.append(Row(what, theirs, rate, _rate(found, theirs), ratio, target=Target(0.5)))
    return rows


def _many_row(place: Place) -> Row:
    what = f"{_MANY} machines at once: connect, a command and a function on each; seconds for all"
    with place.workers({_OURS: ("machines", "many")}) as (workers, _):
        place.progress(what)
        times = [workers[_OURS].go(_MANY).seconds for _ in range(3)]
    took = Spread.of(times)
    return Row(what, "all answer", took, compared=took, unit="s")
