"""Jobs in fresh processes: started, listened to, and survived if they crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["run_job"]

# numpy is there before the clock starts, since every engine needs it; gristmill is not.
_START = (
    "import sys,time,numpy\n"
    "try: status=open('/proc/self/status').read()\n"
    "except OSError: status=''\n"
    "start=time.perf_counter()\n"
    "import gristmill.comparison.worker as worker\n"
    "worker.main(sys.argv[1],start,status)"
)


def run_job(
    job: Mapping[str, Any], folder: Path, listen: Callable[[dict[str, Any]], None], *, cache: str = "cache"
) -> str | None:
    """Let a fresh process do a job, and hear each line of its answer.

    Args:
        job: What the process is told.
        folder: For its files.
        listen: Takes each line.
        cache: The folder within that one that holds what sessions remember of this machine.

    Returns:
        Why it failed, if it did.
    """
    environment = {**os.environ, "GRISTMILL_CACHE_DIR": str(folder / cache)}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        path = folder / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-c", _START, str(path)]
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": complaints}
        with subprocess.Popen(command, **pipes, env=environment, encoding="utf-8") as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    listen(json.loads(line))
            except BaseException:
                process.kill()
                raise
        if process.returncode == 0:
            return None
        complaints.seek(0)
        last = ([""] + [line.strip() for line in complaints if line.strip()])[-1]
        return f"ended with code {process.returncode}{': ' * bool(last)}{last[:200]}"
