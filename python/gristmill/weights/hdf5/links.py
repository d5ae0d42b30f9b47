"""The members of a group: their names and where they are.

Old groups keep names in a heap and members in a B-tree of symbol tables; new ones keep each member in a message of the
group's own header. Only hard links are followed; what leads elsewhere is kept under its name, to be refused if it is
asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

from gristmill.errors import ModelFormatError
from gristmill.weights.hdf5.content import UNDEFINED, Content, Cursor, damage
from gristmill.weights.hdf5.headers import Kind, Messages

__all__ = ["ELSEWHERE", "group_members", "tree_leaves"]

#: Stands for the address of a member that is a soft or external link.
ELSEWHERE = -1

_SOFT_LINK = 2
_ENTRY_BYTES = 40


def group_members(content: Content, messages: Messages) -> dict[str, int]:
    """The address of each member; none if the object is no group.

    Raises:
        ModelFormatError: If the group is damaged, or has so many members in a form that is not supported.
    """
    members: dict[str, int] = {}
    for table in messages.all(Kind.SYMBOL_TABLE):
        _add(members, _old_members(content, table.integer(8), table.integer(8)))
    _add(members, map(_new_member, messages.all(Kind.LINK)))
    info = messages.first(Kind.LINK_INFO)
    if info is not None:
        info.skip(1)
        info.skip(8 if info.integer(1) & 1 else 0)
        if info.integer(8) != UNDEFINED:
            raise ModelFormatError(
                "has a large group in the form of libver='latest' or track_order; save it with h5py's defaults"
            )
    return members


def _add(members: dict[str, int], found: Iterator[tuple[str, int]]) -> None:
    for name, address in found:
        if name in members:
            raise damage(f"two members of a group are called {name!r}")
        members[name] = address


def _old_members(content: Content, tree: int, heap: int) -> Iterator[tuple[str, int]]:
    header = content.structure(heap, 32)
    header.expect(b"HEAP", 0)
    header.skip(3)
    size = header.integer(8)
    header.skip(8)
    names = content.structure(header.integer(8), size).take(size).tobytes()
    for _, leaf in tree_leaves(content, tree, kind=0, key_bytes=8):
        count = int.from_bytes(content.piece(leaf + 6, 2), "little")
        table = content.structure(leaf, 8 + count * _ENTRY_BYTES)
        table.expect(b"SNOD", 1)
        table.skip(3)
        for _ in range(count):
            entry = Cursor(table.take(_ENTRY_BYTES))
            at, address, cached = entry.integer(8), entry.integer(8), entry.integer(4)
            end = names.find(b"\0", at)
            if end < 0:
                raise damage(f"a name at byte {at} of {size}")
            yield names[at:end].decode(errors="replace"), ELSEWHERE if cached == _SOFT_LINK else address


def _new_member(link: Cursor) -> tuple[str, int]:
    version, flags = link.integer(1), link.integer(1)
    if version != 1:
        raise damage(f"a link of unknown version {version}")
    kind = link.integer(1) if flags & 0x08 else 0
    link.skip((8 if flags & 0x04 else 0) + (1 if flags & 0x10 else 0))
    name = bytes(link.take(link.integer(1 << (flags & 3)))).decode(errors="replace")
    return name, ELSEWHERE if kind else link.integer(8)


def tree_leaves(content: Content, root: int, *, kind: int, key_bytes: int) -> Iterator[tuple[Cursor, int]]:
    """What the leaves of a B-tree point to: the key before each address, and the address.

    Raises:
        ModelFormatError: If the tree is damaged.
    """
    nodes: list[tuple[int, int | None]] = [(root, None)]
    while nodes:
        at, expected = nodes.pop()
        if at == UNDEFINED:
            continue
        count = int.from_bytes(content.piece(at + 6, 2), "little")
        node = content.structure(at, 24 + count * (key_bytes + 8) + key_bytes)
        node.expect(b"TREE")
        found, level = node.integer(1), node.integer(1)
        if found != kind or (expected is not None and level != expected):
            raise damage(f"a node of kind {found} and level {level} in a tree of kind {kind}")
        node.skip(18)
        children = [(Cursor(node.take(key_bytes)), node.integer(8)) for _ in range(count)]
        if level:
            nodes.extend((address, level - 1) for _, address in reversed(children))
        else:
            yield from children
