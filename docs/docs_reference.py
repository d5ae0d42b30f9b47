"""The API reference: Markdown made of the docstrings of everything public."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from types import ModuleType

__all__ = ["MODULES", "reference"]

#: The public modules, in the order of the reference.
MODULES = (
    "gristmill",
    "gristmill.kernels",
    "gristmill.graph",
    "gristmill.sequential",
    "gristmill.errors",
    "gristmill.embedded",
    "gristmill.reference",
    "gristmill.timing",
    "gristmill.charts",
)
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|Example):$")
_TITLES = {"Args": "Arguments", "Example": "Example"}
_ENTRY = re.compile(r"^(\*{0,2}\w[\w, ]*): (.*)$")
_ROLE = re.compile(r":\w+:`~?\.?([^`]+)`")


def reference(name: str) -> str:
    """A page about a module.

    Raises:
        LookupError: Something public has no docstring.
    """
    module = importlib.import_module(name)
    parts = [f"# {name}", _text(inspect.getdoc(module) or "")]
    for member in _public(module):
        value = getattr(module, member)
        elsewhere = inspect.isclass(value) and issubclass(value, Exception) and value.__module__ != name
        if not isinstance(value, ModuleType) and not elsewhere:
            parts += _described(value, member, 2)
    return "\n\n".join(parts) + "\n"


def _public(module: ModuleType) -> list[str]:
    names = getattr(module, "__all__", None)
    if names is not None:
        return [name for name in names if not name.startswith("__")]
    return [
        n for n, v in vars(module).items() if not n.startswith("_") and getattr(v, "__module__", "") == module.__name__
    ]


def _described(value: object, name: str, level: int) -> Iterator[str]:
    """A heading, the signature and the docstring, and the same for the members of a class."""
    if not (inspect.isclass(value) or callable(value) or isinstance(value, property)):
        return
    doc = inspect.getdoc(value)
    if not doc:
        raise LookupError(f"{name} has no docstring")
    yield f"{'#' * level} {name}"
    if not isinstance(value, property):
        yield f"```python\n{_signature(value, name)}\n```"
    yield _text(doc)
    if inspect.isclass(value):
        for member, inner in vars(value).items():
            plain = inner.__func__ if isinstance(inner, (staticmethod, classmethod)) else inner
            if not member.startswith("_") and (inspect.isfunction(plain) or isinstance(plain, property)):
                yield from _described(plain, f"{name}.{member}", level + 1)


def _signature(value: object, name: str) -> str:
    if inspect.isclass(value) and issubclass(value, Exception):
        return f"class {name}({value.__bases__[0].__name__})"
    try:
        signature = str(inspect.signature(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        signature = "(...)"
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature).replace("(self, ", "(").replace("(self)", "()")
    text = f"{'class ' if inspect.isclass(value) else ''}{name}{signature.removesuffix(' -> None')}"
    if len(text) <= 100:
        return text
    start, _, rest = text.partition("(")
    inside, _, end = rest.rpartition(")")
    return f"{start}(\n" + "".join(f"    {part},\n" for part in _split(inside)) + f"){end}"


def _split(arguments: str) -> list[str]:
    """Arguments one by one; commas in brackets and quotes do not part them."""
    parts, depth, quoted = [""], 0, False
    for letter in arguments:
        quoted ^= letter == "'"
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _text(doc: str) -> str:
    """Markdown of a docstring: sections as bold titles and lists, examples and indented blocks as code."""
    parts: list[str] = []
    section = ""
    for lines in _paragraphs(doc.splitlines()):
        block = lines
        first = _SECTION.match(lines[0])
        if first:
            section = first[1]
            parts.append(f"**{_TITLES.get(section, section)}**")
            block = inspect.cleandoc("\n".join(lines[1:])).splitlines()
        if not block:
            continue
        if block[0].lstrip().startswith(">>>"):
            parts.append("```pycon\n" + inspect.cleandoc("\n".join(block)) + "\n```")
        elif section in {"Args", "Attributes", "Raises"}:
            parts.append(_entries(block))
        elif block[0].startswith("    "):
            parts.append("```text\n" + inspect.cleandoc("\n".join(block)) + "\n```")
        else:
            parts.append(_spans("\n".join(line.strip() for line in block)))
    return "\n\n".join(parts)


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Blocks between empty lines; a section's title begins a block of its own."""
    block: list[str] = []
    for line in lines:
        if (not line.strip() or _SECTION.match(line)) and block:
            yield block
            block = []
        if line.strip():
            block.append(line.rstrip())
    if block:
        yield block


def _entries(lines: list[str]) -> str:
    items: list[str] = []
    for line in lines:
        found = _ENTRY.match(line)
        if found:
            items.append(f"- `{found[1]}`: {_spans(found[2])}")
        elif items:
            items[-1] += f" {_spans(line.strip())}"
        else:
            items.append(_spans(line.strip()))
    return "\n".join(items)


def _spans(text: str) -> str:
    return _ROLE.sub(r"`\1`", text).replace("``", "`")
