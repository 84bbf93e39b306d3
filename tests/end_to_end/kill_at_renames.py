"""Do a run in which every stage is killed on the way; started by test_resume.py in a process of its own, as it forks.

    python kill_at_renames.py WHOLE KILLED SEED POINTS

WHOLE becomes an undisturbed run. In KILLED each stage is first killed (SIGKILL) at POINTS random moments and then done.
A file of a run changes only when a name is given to it, so the moments are: just before and just after each rename.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tiny"))
from tiny import tiny_settings, write_true_captions

from neurocanvas.stages import STAGES, run_stage
from neurocanvas.stages.run import Run

rename = os.replace


def run_and_count(run, stage):
    """Run a stage and count its renames."""
    count = 0

    def counted(source, target):
        nonlocal count
        count += 1
        rename(source, target)

    os.replace = counted
    run_stage(run, stage)
    os.replace = rename
    return count


def run_and_die(run, stage, moment):
    """Run a stage in a child that kills itself at a moment; tell whether it came so far."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
            sys.exit(f"stage {stage}, moment {moment}: failed")
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    left = [moment]

    def deadly(source, target):
        for step in (lambda: None, lambda: rename(source, target)):
            step()
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    os.replace = deadly
    try:
        run_stage(run, stage)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(whole, killed, seed, points):
    rng = np.random.default_rng(seed)
    deaths = {}
    for stage in STAGES:
        runs = [Run(Path(folder), tiny_settings()) for folder in (whole, killed)]
        count = run_and_count(runs[0], stage)
        # the first rename is that of run.toml, where no stage has begun
        moments = rng.permutation(np.arange(1, 2 * count))[:points] if count > 1 else [0]
        deaths[stage] = sum(run_and_die(Run(Path(killed), tiny_settings()), stage, int(moment)) for moment in moments)
        run_stage(Run(Path(killed), tiny_settings()), stage)
        if stage == "caption":
            same = [(Path(folder) / "targets" / "caption.txt").read_bytes() for folder in (whole, killed)]
            deaths["captions are the same"] = same[0] == same[1]
            for run in runs:
                write_true_captions(Run(run.folder, tiny_settings()))
    sys.stdout.write(json.dumps(deaths))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
