"""Checks what a wheel carries: the package, one extension, its stubs, the embedded data, the licence, and nothing else.

python .ci/check_wheel.py WHEEL
"""

from __future__ import annotations

import re
import sys
import zipfile

_REQUIRED = [
    r"gristmill/_core\.[\w.-]+\.(so|pyd)",
    r"gristmill/_core\.pyi",
    r"gristmill/py\.typed",
    r"gristmill/__init__\.py",
    r"gristmill/data/digits\.npz",
    r"gristmill-[\w.]+\.dist-info/(licenses/)?LICENSE",
    r"gristmill-[\w.]+\.dist-info/entry_points\.txt",
]
_ALLOWED = re.compile(r"gristmill/([a-z_]\w*/)*\w+\.py|gristmill-[\w.]+\.dist-info/.+")


def complaints(names: list[str]) -> list[str]:
    """Return what is wrong with a wheel that holds these files."""
    found = {pattern: [name for name in names if re.fullmatch(pattern, name)] for pattern in _REQUIRED}
    known = {name for matches in found.values() for name in matches}
    wrong = [f"{len(matches)} files match {pattern}, not 1" for pattern, matches in found.items() if len(matches) != 1]
    return wrong + [f"unexpected: {name}" for name in names if name not in known and not _ALLOWED.fullmatch(name)]


def main(path: str) -> int:
    """Print the complaints about one wheel; the exit status is 1 if there are any."""
    with zipfile.ZipFile(path) as wheel:
        names = [name for name in wheel.namelist() if not name.endswith("/")]
    wrong = complaints(names)
    print("\n".join([*wrong, f"{path}: {len(names)} files, {len(wrong)} complaints"]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
