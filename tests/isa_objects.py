"""Checks that the objects of one instruction-set level leak nothing into code that runs everywhere.

A linker keeps one copy of each inline function. If an object compiled for AVX-512 defined one, that copy could end up
in baseline code. So each global symbol of such an object has to be one of its level's ``install_`` functions:

    python tests/isa_objects.py BUILD_DIRECTORY [NM]
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_LEVEL_DIRECTORY = re.compile(r"gristmill_(?P<level>scalar|avx2|avx512vnni|amx|neon\w*)\.dir$")
_SYMBOL = re.compile(r"^[0-9a-f]* *(?P<kind>\S) (?P<name>.+)$")


def level_objects(build: Path) -> list[tuple[str, Path]]:
    """Return (level, object) for each kernel object below a build directory."""
    return [
        (match["level"], path)
        for path in sorted(build.rglob("*.o"))
        for part in path.parts
        if (match := _LEVEL_DIRECTORY.match(part))
    ]


def leaked_symbols(level: str, path: Path, nm: str = "nm") -> list[str]:
    """Return the symbols of a level's object that other code could be linked to and must not."""
    listing = subprocess.run([nm, "-C", str(path)], check=True, capture_output=True, text=True).stdout
    installer = re.compile(rf"gristmill::install_(\w+_)?{level}\(")
    leaks = []
    for line in listing.splitlines():
        match = _SYMBOL.match(line)
        if match is None:
            continue
        kind, name = match["kind"], match["name"]
        weak = kind in "VWvu"
        defined_globally = kind.isupper() and kind != "U"
        if weak or (defined_globally and not (kind == "T" and installer.match(name))):
            leaks.append(f"{kind} {name}")
    return leaks


def main(arguments: list[str]) -> int:
    """Check a build directory; the exit status is 1 if anything leaks, 2 if there is nothing to check."""
    build, nm = Path(arguments[0]), arguments[1] if len(arguments) > 1 else "nm"
    objects = level_objects(build)
    leaks = [f"{path}: {leak}" for level, path in objects for leak in leaked_symbols(level, path, nm)]
    print("\n".join([*leaks, f"{len(objects)} kernel objects, {len(leaks)} leaked symbols"]))
    return 2 if not objects else int(bool(leaks))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
