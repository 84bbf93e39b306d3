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

from neurocanvas.pipeline.run import RunFolder
from neurocanvas.workflow import STAGES, run_stage

rename = os.replace


def in_child(work):
    """Do some work in a child, and return how that ended; torch's backward pass forbids forks after it."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def run_and_count(folder, stage, scratch):
    """Run a stage and count its renames."""

    def work():
        def counted(source, target):
            rename(source, target)
            renamed.append(target)

        renamed = []
        os.replace, os.environ["NEUROCANVAS_CACHE"] = counted, f"{folder}-cache"
        run_stage(RunFolder(folder, tiny_settings()), stage)
        scratch.write_text(str(len(renamed)))

    if in_child(work):
        sys.exit(f"stage {stage}: failed")
    return int(scratch.read_text())


def run_and_die(folder, stage, moment):
    """Run a stage, killed at a moment; tell whether it came so far."""

    def work():
        def deadly(source, target):
            for step in (lambda: None, lambda: rename(source, target)):
                step()
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1

        left = [moment]
        os.replace, os.environ["NEUROCANVAS_CACHE"] = deadly, f"{folder}-cache"
        run_stage(RunFolder(folder, tiny_settings()), stage)

    status = in_child(work)
    if status not in (0, signal.SIGKILL):
        sys.exit(f"stage {stage}, moment {moment}: failed")
    return status == signal.SIGKILL


def main(whole, killed, seed, points):
    """Go through the stages; print how often each was killed."""
    # imported once, for all children
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline  # noqa: F401
    from mne import make_sphere_model  # noqa: F401
    from transformers import BlipForConditionalGeneration, CLIPModel, CLIPTextModel  # noqa: F401

    rng = np.random.default_rng(seed)
    deaths = {}
    for stage in STAGES:
        count = run_and_count(whole, stage, whole.with_name("count"))
        moments = rng.permutation(2 * count)[:points]
        deaths[stage] = sum(run_and_die(killed, stage, int(moment)) for moment in moments)
        run_and_count(killed, stage, whole.with_name("count"))
        if stage == "caption":
            same = [(folder / "targets" / "caption.txt").read_bytes() for folder in (whole, killed)]
            deaths["captions are the same"] = same[0] == same[1]
            for folder in (whole, killed):
                write_true_captions(RunFolder(folder, tiny_settings()))
    sys.stdout.write(json.dumps(deaths))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
