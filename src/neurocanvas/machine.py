"""What this process may use of its machine: cores, memory, GPUs, as a container or a batch job limits them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
# Controllers of a control group, of the second version and the first -> files of its limit and its use, and the entry
# of memory.stat for pages of files, which count as used and can be had back.
LIMITS = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def cores() -> int:
    """Count the cores that this process may use."""
    import joblib

    found: int = joblib.cpu_count()  # knows affinity and the quota of a control group
    return found


def free_memory() -> int:
    """Say how much memory there is left for this process."""
    import psutil

    return min([psutil.virtual_memory().available, *_left_of_limits()])


def gpus() -> list[str]:
    """List the GPUs that this process may use."""
    import torch

    given = [one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    count = torch.cuda.device_count()
    return given[:count] or [str(number) for number in range(count)]


def _left_of_limits() -> Iterator[int]:
    """Bytes left of each limit on memory that this process is under."""
    with suppress(OSError):  # no Linux
        for line in OWN_GROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            version = "memory" if "memory" in controllers.split(",") else controllers
            if version not in LIMITS:
                continue
            limit, used, files = LIMITS[version]
            root = GROUPS / controllers
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):  # a container sees its own group as the root, under no path
                with suppress(OSError, ValueError, LookupError):  # no such group, no limit ("max")
                    stat = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                    taken = int((folder / used).read_text()) - int(stat[files])
                    yield max(0, int((folder / limit).read_text()) - taken)
                if folder == root:
                    break
