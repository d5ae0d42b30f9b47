"""Where values live: results as outputs, parts of concatenations in their place, and the rest in one arena.

Three things save copies and memory, all decided on finished steps:

- an output's storage is the caller's array, if it holds that output and nothing else;
- a copy of a whole storage into a contiguous part of another goes: the first storage becomes that part;
- a step that may work in place does so on a storage that nobody reads later.

What remains is placed greedily, the largest first, each at the lowest offset where no storage alive at the same time
lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gristmill.compile.program import Program, Step, Storage, Value

ALIGNMENT = 64


@dataclass
class Life:
    """The steps from a storage's first use to its last, both counted."""

    first: int
    last: int


def bind_outputs(program: Program) -> None:
    """Let outputs be written where the caller wants them; what cannot be is copied there at the end."""
    for index, info in enumerate(program.graph.outputs):
        value = program.value(info.name)
        storage = value.storage
        if value.fills_storage and storage.place == "arena" and storage.parent is None:
            storage.place, storage.index = "output", index
        else:
            target = Value(Storage(value.nbytes, "output", index), value.dtype, value.shape)
            program.step("copy", info.name, [value.view()], [target.view()])


def drop_copies(program: Program) -> None:
    """Let storages that are copied as a whole be written where the copy would go."""
    kept = []
    for step in program.steps:
        target = _part_of_target(step) if step.movable else None
        if target is None:
            kept.append(step)
        else:
            source = step.reads[0].storage
            source.parent, source.offset = target.storage, target.offset
    program.steps[:] = kept


def work_in_place(program: Program) -> None:
    """Let steps overwrite what nobody reads after them."""
    lives = storage_lives(program.steps)
    for number, step in enumerate(program.steps):
        source, target = step.in_place, step.writes[0]
        if source is None or not (source.fills_storage and target.fills_storage) or source.nbytes != target.nbytes:
            continue
        ours, theirs = source.storage, target.storage
        if ours.place == "arena" and ours.parent is None and lives[ours].last == number:
            ours.parent, ours.offset = theirs, 0
            root = lives[theirs.root()[0]]
            root.first = min(root.first, lives.pop(ours).first)


def place(program: Program) -> int:
    """Choose offsets in the arena; return its size."""
    lives = storage_lives(program.steps)
    arena = [storage for storage in lives if storage.place == "arena"]
    placed = np.zeros((4, len(arena)), np.int64)  # in columns: where it begins and ends, and its life, in order
    for count, storage in enumerate(sorted(arena, key=lambda storage: (-storage.nbytes, lives[storage].first))):
        life = lives[storage]
        begins, ends, firsts, lasts = placed[:, :count]
        beside = ((firsts <= life.last) & (lasts >= life.first)).nonzero()[0]
        free = np.zeros(len(beside) + 1, np.int64)
        np.maximum.accumulate(ends[beside], out=free[1:])
        gaps = (free[:-1] + storage.nbytes <= begins[beside]).nonzero()[0]
        storage.offset = int(free[gaps[0] if gaps.size else -1])
        end = -(-(storage.offset + storage.nbytes) // ALIGNMENT) * ALIGNMENT
        at = int(begins.searchsorted(storage.offset))
        placed[:, at + 1 : count + 1] = placed[:, at:count]
        placed[:, at] = storage.offset, end, life.first, life.last
    return int(placed[1].max(initial=0))


def storage_lives(steps: list[Step]) -> dict[Storage, Life]:
    """When each storage that is no part of another is used."""
    lives: dict[Storage, Life] = {}
    for number, step in enumerate(steps):
        for value in (*step.reads, *step.writes):
            root = value.storage.root()[0]
            lives.setdefault(root, Life(number, number)).last = number
    return lives


def _part_of_target(step: Step) -> Value | None:
    """Where a copy puts a whole storage of the arena, if that is a contiguous part of another."""
    source, target = step.arguments
    value, part = source.contiguous(), target.contiguous()
    if value is None or part is None or not value.fills_storage:
        return None
    free = value.storage.place == "arena" and value.storage.parent is None
    return part if free and part.storage.root()[0] is not value.storage else None
