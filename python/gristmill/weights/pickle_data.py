"""Pickles read as data: a stack machine that builds containers, numbers, strings and named records, and calls nothing.

A pickle is a program. Python's own machine imports what the program names and calls it, so that opening a file can run
anything. This one knows the instructions that build data; for a name it asks a table, and what it finds there is ours.
A name that is not in the table ends the reading with an error that says which.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, TypeAlias

from gristmill.errors import ModelFormatError

__all__ = ["Names", "read_pickle"]

#: What stands for each global name ``module name`` of a pickle: a function of its arguments, or a plain value.
Names: TypeAlias = Mapping[str, Any]

_MARK = object()

_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "MARK": lambda: _MARK,
}

_LITERALS = frozenset(
    prefix + kind
    for kind, prefixes in {
        "INT": ("", "BIN"),
        "INT1": ("BIN",),
        "INT2": ("BIN",),
        "LONG": ("",),
        "LONG1": ("",),
        "LONG4": ("",),
        "FLOAT": ("", "BIN"),
        "UNICODE": ("", "BIN", "SHORT_BIN"),
        "UNICODE8": ("BIN",),
        "STRING": ("", "BIN", "SHORT_BIN"),
        "BYTES": ("BIN", "SHORT_BIN"),
        "BYTES8": ("BIN",),
    }.items()
    for prefix in prefixes
)
_IGNORED = frozenset(("PROTO", "FRAME"))


def read_pickle(stream: BinaryIO, names: Names, persistent: Callable[[Any], Any] | None = None) -> Any:  # noqa: ANN401
    """Read one pickle from where the stream stands.

    Args:
        stream: Left behind the end of the pickle.
        names: The global names that the pickle may use.
        persistent: Turns a persistent identifier into a value.

    Raises:
        ModelFormatError: If the pickle is damaged, names something else, or uses an instruction that is not for data.
    """
    machine = _Machine(names, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except ModelFormatError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, UnicodeError) as error:
        raise ModelFormatError(f"damaged pickle: {error}") from error
    raise ModelFormatError("damaged pickle: it has no end")


class _Machine:
    def __init__(self, names: Names, persistent: Callable[[Any], Any] | None) -> None:
        self._names = names
        self._functions = {id(value) for value in names.values() if callable(value)}
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:  # noqa: ANN401
        value = self._stack.pop()
        if value is _MARK:
            raise ModelFormatError("damaged pickle: a mark where a value belongs")
        return value

    def step(self, name: str, argument: Any) -> None:  # noqa: ANN401
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _IGNORED:
            return
        elif (action := getattr(self, f"_{name.lower()}", None)) is not None:
            action(argument)
        else:
            raise ModelFormatError(f"the pickle uses {name}, which weights have no need of")

    def _pop_to_mark(self) -> list[Any]:
        at = len(self._stack) - 1 - self._stack[::-1].index(_MARK)
        items = self._stack[at + 1 :]
        del self._stack[at:]
        return items

    # Containers

    def _tuple(self, _: None) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _list(self, _: None) -> None:
        self._stack.append(self._pop_to_mark())

    def _dict(self, _: None) -> None:
        items = self._pop_to_mark()
        self._stack.append(dict(zip(items[::2], items[1::2], strict=True)))

    def _tuple1(self, _: None) -> None:
        self._stack.append((self.pop(),))

    def _tuple2(self, _: None) -> None:
        second = self.pop()
        self._stack.append((self.pop(), second))

    def _tuple3(self, _: None) -> None:
        third, second = self.pop(), self.pop()
        self._stack.append((self.pop(), second, third))

    def _append(self, _: None) -> None:
        self._extend([self.pop()])

    def _appends(self, _: None) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, items: Sequence[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise ModelFormatError("damaged pickle: appends to what is no list")
        self._stack[-1].extend(items)

    def _additems(self, _: None) -> None:
        items = self._pop_to_mark()
        if not isinstance(self._stack[-1], set):
            raise ModelFormatError("damaged pickle: adds to what is no set")
        self._stack[-1].update(items)

    def _setitem(self, _: None) -> None:
        value = self.pop()
        self._update([self.pop(), value])

    def _setitems(self, _: None) -> None:
        self._update(self._pop_to_mark())

    def _update(self, items: Sequence[Any]) -> None:
        if not isinstance(self._stack[-1], dict):
            raise ModelFormatError("damaged pickle: sets items of what is no dict")
        self._stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _pop(self, _: None) -> None:
        self._stack.pop()

    def _pop_mark(self, _: None) -> None:
        self._pop_to_mark()

    def _dup(self, _: None) -> None:
        self._stack.append(self._stack[-1])

    # Memory

    def _memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    _binput = _long_binput = _put

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _binget = _long_binget = _get

    # Names

    def _global(self, argument: str) -> None:
        if argument not in self._names:
            raise ModelFormatError(
                f"the pickle names {argument.replace(' ', '.')}, which is not a tensor or plain data"
            )
        self._stack.append(self._names[argument])

    def _stack_global(self, _: None) -> None:
        name = self.pop()
        self._global(f"{self.pop()} {name}")

    def _reduce(self, _: None) -> None:
        arguments, function = self.pop(), self.pop()
        if id(function) not in self._functions or not isinstance(arguments, tuple):
            raise ModelFormatError(f"damaged pickle: calls {type(function).__name__}")
        self._stack.append(function(*arguments))

    _newobj = _reduce

    def _build(self, _: None) -> None:
        """Attributes of an object are of no use to weights: dropped."""
        self.pop()

    def _persid(self, argument: str) -> None:
        self._resolve(argument)

    def _binpersid(self, _: None) -> None:
        self._resolve(self.pop())

    def _resolve(self, identifier: Any) -> None:  # noqa: ANN401
        if self._persistent is None:
            raise ModelFormatError("the pickle refers to something outside itself")
        self._stack.append(self._persistent(identifier))
