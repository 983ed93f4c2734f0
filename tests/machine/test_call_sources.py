"""Functions that travel as source: those of __main__, lambdas, closures; with each Python."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from machine.call_pipes import PipeInterpreter, pythons

from remctl_toolkit.machine.call import RemoteCallError

pytestmark = pytest.mark.once

SCRIPT = '''
from __future__ import annotations
import collections
import concurrent.futures
import enum
import functools
import os.path
import threading
from dataclasses import dataclass, field
from pathlib import Path

LIMIT = 10
TABLE = {"a": [1]}
LOCK = threading.Lock()
counter = 0


def helper(x, *, by=LIMIT):
    return x + by


def simple(x: int | NotDefinedAnywhere = 2) -> list[int]:
    """What it does."""
    return [helper(x), LIMIT]


def count():
    global counter
    counter += 1
    return counter


def remember(x, seen=[]):
    seen.append(x)
    return list(seen)


def recursive(n):
    return 0 if n == 0 else 1 + recursive(n - 1)


def even(n):
    return n == 0 or odd(n - 1)


def odd(n):
    return n != 0 and even(n - 1)


@functools.lru_cache(maxsize=None)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def call_fibonacci(n):
    return fibonacci(n), fibonacci.cache_info().currsize


def decorator(function):
    @functools.wraps(function)
    def wrapper(*args):
        return ["wrapped", function(*args)]

    return wrapper


@decorator
def decorated(x):
    return helper(x)


def make(by):
    total = [0]

    def add(x=1, *, again: Path = None):
        total[0] += x * by
        return total[0] if again is None else add(x)

    return add


def make_odd_even():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    return even


def submodules():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(os.path.join, "a", "b").result()


def default_point(ready=True):
    return LIMIT if ready else Point()


class Base:
    def __init__(self, name="base"):
        self.name = name

    def describe(self):
        return "%s %s" % (type(self).__name__, self.name)


class Derived(Base):
    def describe(self):
        return super().describe() + " " + str(helper(1)) + str(isinstance(self, Derived))

    @classmethod
    def of(cls, name):
        return cls(name).describe()

    @staticmethod
    def static(x):
        return helper(x)

    class Inner:
        def ping(self):
            return "pong"


@dataclass
class Point:
    x: int = default_point()
    more: list[int] = field(default_factory=lambda: [LIMIT])

    def total(self):
        return self.x + sum(self.more) + (Point.unit().x if self.x > 1 else 0)

    @staticmethod
    def unit():
        return Point(1)


class Colour(enum.Enum):
    RED = 1


def use(value):
    return type(value).__name__, value.total(), Point(3).total(), isinstance(value, Point)


def colour(value):
    return value is Colour.RED


def generator(n):
    yield from (helper(x) for x in range(n))


def failing():
    raise ValueError(f"limit {LIMIT}")


def locked():
    with LOCK:
        return 1


def local_class():
    class Local:
        pass

    return Local()


lambdas = [lambda x: x + LIMIT, lambda x: (x, [lambda y: y * x][0](2))]
async def coroutine(): return 1
'''


def script(path: Path, text: str, name: str = "__main__") -> Any:
    """Run a script as Python does, and return its names."""
    path.write_text(text)
    module = ModuleType(name)
    module.__file__ = str(path)
    exec(compile(text, str(path), "exec", dont_inherit=True), module.__dict__)
    return module


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return script(tmp_path_factory.mktemp("main") / "script.py", SCRIPT)


@pytest.fixture(scope="module", params=pythons())
def far(request: pytest.FixtureRequest) -> Iterator[PipeInterpreter]:
    with PipeInterpreter(pythons()[request.param]) as interpreter:
        yield interpreter


@pytest.fixture(scope="module")
def here() -> Iterator[PipeInterpreter]:
    with PipeInterpreter(sys.executable) as interpreter:
        yield interpreter


def test_functions_of_main(far: PipeInterpreter, main: Any) -> None:
    assert far.call(main.simple) == [12, 10]
    assert far.call(main.simple, 5) == [15, 10]
    assert far.call(main.helper, 1, by=2) == 3
    assert far.call(main.recursive, 5) == 5
    assert far.call(main.even, 7) is False
    assert far.call(main.submodules) == "a/b"
    assert list(far.call(main.generator, 3)) == [10, 11, 12]


def test_decorated_and_made_functions(far: PipeInterpreter, main: Any) -> None:
    assert far.call(main.decorated, 1) == ["wrapped", 11]
    assert far.call(main.lambdas[0], 1) == 11
    assert far.call(main.lambdas[1], 3) == (3, 6)
    assert far.call(main.call_fibonacci, 60) == (1548008755920, 61)
    assert far.call(main.fibonacci, 3) == 2
    assert far.call(main.make_odd_even(), 7) is False
    add = main.make(3)
    assert far.call(add) == 3
    assert far.call(add, 2, again=Path("/")) == 12  # The local variables are sent with each call.


def test_classes_of_main(far: PipeInterpreter, main: Any) -> None:
    assert far.call(main.Derived("me").describe) == "Derived me 11True"
    assert far.call(main.Derived.of, "you") == "Derived you 11True"
    assert far.call(main.Derived.static, 1) == 11
    assert far.call(main.Derived.describe, main.Derived("x")) == "Derived x 11True"
    assert far.call(main.Derived.Inner().ping) == "pong"
    assert far.call(main.use, main.Point(2)) == ("Point", 13, 14, True)
    assert far.call(main.colour, main.Colour.RED) is True


# Names whose order matters, and names that refer to themselves.
ORDERS = """
import asyncio
import collections
import contextlib
from dataclasses import dataclass, field
import functools
import typing

def make():
    return Later(7)

@dataclass
class First:
    x: int = 1
    y: list = field(default_factory=lambda: [make])
    def later(self):
        return make().x

class Later(First):
    pass

class Default:
    value = 5

def default():
    return Default().value

class Config:
    default = default()
    def get(self):
        return self.default, TABLE["p"].x, Pair(1, 2).b, Named().a

Pair = collections.namedtuple("Pair", "a b")
TABLE = {"p": First(9)}

if True:
    class Named(typing.NamedTuple):
        a: int = 3

def classes():
    return First().later(), Later(2).later(), Config().get()

LIMIT = 4

@contextlib.contextmanager
def manager():
    yield LIMIT

def managed():
    with manager() as found:
        return found

class Slots:
    __slots__ = ("a",)
    @property
    def visible(self):
        return LIMIT
    def __private(self):
        return 8
    def private(self):
        return self.__private()

def slots():
    return Slots().visible, Slots().private()

pair = lambda x: (x, 1), lambda x: (x, 2)

async def coroutine():
    return 3

def wait():
    return asyncio.run(coroutine())

def words(a, /, b, *c, d=LIMIT, **e):
    return a, b, c, d, e

partial = functools.partial(words, 1)

class Meta(type):
    def hello(cls):
        return "meta"

class WithMeta(metaclass=Meta):
    pass

def meta():
    return WithMeta.hello()
"""


def test_programs_as_they_are_written(far: PipeInterpreter, tmp_path: Path) -> None:
    main = script(tmp_path / "orders.py", ORDERS)
    assert far.call(main.classes) == (7, 7, (5, 9, 2, 3))
    assert far.call(main.managed) == 4
    assert far.call(main.slots) == (4, 8)
    assert [far.call(each, 0) for each in main.pair] == [(0, 1), (0, 2)]
    assert far.call(main.wait) == 3
    assert far.call(main.words, 1, 2, 3, d=5, z=1) == (1, 2, (3,), 5, {"z": 1})
    assert far.call(main.partial, 2) == (1, 2, (), 4, {})
    assert far.call(main.meta) == "meta"
    assert far.call(main.Config().get) == (5, 9, 2, 3)
    assert far.served == ()


# Statements that call, when they are run, what needs names in any order.
AT_ONCE = """
import functools
FACTOR = 3
SIGN = "+"

def traced(function):
    def wrapper(*args):
        return (SIGN, function(*args))
    return wrapper

@traced
def double(x):
    return x * FACTOR

class Later:
    made = 1

def later():
    return Later.made

@functools.lru_cache(maxsize=4)
def cached(x):
    return x + FACTOR

class Table:
    order = sorted([1, 2, 3], key=lambda x: -x * FACTOR)
    doubled = double(2)
    cached = cached(1)
    made = later()
    names = [f"{SIGN}{n}" for n in range(2)]
    def get(self):
        made = self.order, self.doubled, self.cached, self.made, self.names
        return (*made, TABLE.made, Child().own())

class Child(Table):
    own_made = Table.made
    def own(self):
        return later() + isinstance(self, Child)

TABLE = Table()
CHILDREN = {"a": Child(), "b": [Table, later]}

def get():
    return Table().get(), type(CHILDREN["a"]).__name__, CHILDREN["b"][1]()
"""


@pytest.mark.parametrize("first", ["get", "later", "double", "cached"])
def test_names_are_made_in_an_order_in_which_they_can_be(first: str, tmp_path: Path) -> None:
    with PipeInterpreter(sys.executable) as far:
        main = script(tmp_path / "at_once.py", AT_ONCE)
        arguments = (1,) if first in ("double", "cached") else ()
        assert far.call(getattr(main, first), *arguments) is not None
        found = ([3, 2, 1], ("+", 6), 4, 1, ["+0", "+1"], 1, 2)
        assert far.call(main.get) == (found, "Child", 1)
        assert far.call(main.TABLE.get) == found


def test_a_name_that_is_nowhere_is_one_error(far: PipeInterpreter, tmp_path: Path) -> None:
    text = "class Mine:\n    x = 1\n    def get(self):\n        return missing\n"
    main = script(tmp_path / "missing.py", text)
    with pytest.raises(RemoteCallError, match=r"NameError on .*: name 'missing' is not defined"):
        far.call(main.Mine().get)
    text = f"import os\nHERE = os.getpid() == {os.getpid()}\n"
    text += "class Mine:\n    x = 1 if HERE is True else missing\n"
    text += "def get():\n    return Mine.x\n"
    assert far.call(script(tmp_path / "here.py", text).get) == 1


def test_state_is_kept_between_calls(far: PipeInterpreter, main: Any) -> None:
    assert [far.call(main.count) for _ in range(3)] == [1, 2, 3]
    assert [far.call(main.remember, x) for x in "ab"] == [["a"], ["a", "b"]]
    assert main.counter == 0


def test_tracebacks_show_the_source(far: PipeInterpreter, main: Any) -> None:
    with pytest.raises(RemoteCallError, match=r"ValueError on far.example.org: limit 10") as caught:
        far.call(main.failing)
    lines = caught.value.remote_traceback.splitlines()
    line = SCRIPT.splitlines().index('    raise ValueError(f"limit {LIMIT}")') + 1
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{main.__file__}", line {line}, in failing'
    assert lines[2].strip() == 'raise ValueError(f"limit {LIMIT}")'
    assert lines[-1] == "ValueError: limit 10"


def test_what_has_changed_here_is_sent_again(here: PipeInterpreter, tmp_path: Path) -> None:
    text = "LIMIT = 1\ndef helper():\n    return LIMIT\ndef get():\n    return helper()\n"
    main = script(tmp_path / "a.py", text)
    assert here.call(main.get) == 1
    main.LIMIT = 2
    assert here.call(main.get) == 2
    again = script(tmp_path / "b.py", text.replace("return LIMIT", "return -LIMIT"))
    main.helper = again.helper
    main.LIMIT = 3
    assert here.call(main.get) == -1  # `again` has names of its own, under the same name.


def test_what_has_not_changed_is_not_sent_again(here: PipeInterpreter, tmp_path: Path) -> None:
    text = "DATA = b'x' * 100000\ndef get():\n    return len(DATA)\n"
    main = script(tmp_path / "a.py", text)
    assert here.call(main.get) == 100000
    sent: list[int] = []
    write = here.stream.write
    here.stream.write = lambda octets: (sent.append(len(octets)), write(octets))[1]
    try:
        assert here.call(main.get) == 100000
    finally:
        del here.stream.write
    assert len(sent) == 1
    assert sent[0] < 1000


@pytest.mark.parametrize(
    ("name", "args", "text"),
    [
        ("locked", (), r"'LOCK', which __main__.locked uses, cannot be sent: .*lock"),
        ("local_class", "made", r"an argument cannot be sent: .*class .*Local is inside"),
        ("helper", (open,), None),
    ],
    ids=range(3),
)
def test_what_cannot_be_sent_is_one_error_before_anything_is(
    here: PipeInterpreter, main: Any, name: str, args: Any, text: str | None
) -> None:
    function = getattr(main, name)
    writes = here.stream.writes
    if args == "made":
        function, args = main.helper, (function(),)
    if text is None:
        with pytest.raises(RemoteCallError, match=r"TypeError"):
            here.call(function, *args)
        return
    with pytest.raises(TypeError, match=text):
        here.call(function, *args)
    assert here.stream.writes == writes
    assert here.call(main.count) > 0


def test_modules_that_nobody_can_import(far: PipeInterpreter, tmp_path: Path) -> None:
    text = r"""
class Odd(Exception):
    pass
def check(x):
    try:
        raise Odd(x)
    except Odd as error:
        return str(error)
"""
    odd = script(tmp_path / "odd.py", text, "no_such_module")
    assert far.call(odd.check, "yes") == "yes"


def without_source(tmp_path: Path) -> Any:
    main = script(tmp_path / "gone.py", "LIMIT = 3\ndef get(x=1):\n    return x + LIMIT\n")
    os.unlink(main.__file__)
    return main.get


def test_without_source_the_same_python_takes_the_code(
    here: PipeInterpreter, tmp_path: Path
) -> None:
    assert here.call(without_source(tmp_path), 2) == 5


def test_without_source_another_python_is_one_error(far: PipeInterpreter, tmp_path: Path) -> None:
    if far.python_version[:2] == sys.version_info[:2]:
        assert far.call(without_source(tmp_path)) == 4
        return
    with pytest.raises(
        TypeError, match=r"the source of __main__.get is not available, and Python 3"
    ):
        far.call(without_source(tmp_path))


PROGRAM = """
import sys
from machine.call_pipes import PipeInterpreter
WORD = "hello"
def greet(name): return "%s, %s" % (WORD, name)
with PipeInterpreter(sys.executable) as far:
    print(far.call(greet, "you"), far.call(lambda: WORD))
"""


@pytest.mark.parametrize("way", ["script", "-c", "input"])
def test_each_way_to_run_a_program(way: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    words = {"script": [str(path)], "-c": ["-c", PROGRAM], "input": ["-"]}[way]
    result = subprocess.run(
        [sys.executable, *words],
        input=PROGRAM if way == "input" else "",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=40,
    )
    assert result.stdout == "hello, you hello\n"


def test_doctests(far: PipeInterpreter) -> None:
    text = r"""
    >>> WORD = "hello"
    >>> def greet(name):
    ...     return WORD + name
    >>> far.call(greet, " you")
    'hello you'
    """
    test = doctest.DocTestParser().get_doctest(text, {"far": far}, "page", "page.txt", 0)
    assert doctest.DocTestRunner().run(test).failed == 0
