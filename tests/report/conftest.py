"""A small run folder with everything that the report reads, laid out as a real run leaves it."""

import csv
import json
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neurocanvas import artifacts
from neurocanvas.config import RunSettings, save_settings
from neurocanvas.data.montage import BANDS, CH_NAMES
from neurocanvas.findings import Finding, finding, listed
from neurocanvas.simulation.images import CONCEPTS, render, sample_drawing

LEVELS = {"eeg": 0.78, "shuffled": 0.5, "mean": 0.5, "oracle": 0.97}
CHANCE = {"two_way": 0.5, "n_way": 0.1, "concept_top1": 1 / 6, "concept_top5": 5 / 6, "pixcorr": 0.01, "ssim": 0.28}


def score(metric: str, level: float) -> dict[str, float]:
    """A score `level` of the way from nothing to perfect, in the form of summary.json."""
    chance = CHANCE[metric]
    value = chance + (level - 0.5) * 2 * (1 - chance) * (1.0 if metric[0] in "tc" else 0.6)
    return {
        "value": value, "low": value - 0.04, "high": min(value + 0.04, 1.0),
        "p": 0.0005 if level > 0.6 else 0.42, "chance": chance, "place": (level - 0.5) / 0.47,
    }  # fmt: skip


def make_folder(
    folder: Path, *, n_trials: int = 30, ch_names: tuple[str, ...] = tuple(CH_NAMES), levels: dict[str, float] = LEVELS,
    findings: tuple[Finding, ...] = (), exchanged: str = "trials", captions: dict[int, str] | None = None,
    names: dict[str, str] | None = None, folds: int = 1, evidence: dict[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Write a run of one subject, `n_trials` trials and six concepts; `evidence` holds settings of `write_evidence`."""
    rng = np.random.default_rng(3)
    save_settings(RunSettings.model_validate({"name": "tiny", "simulate": {}}), folder / "run.toml")
    concepts = list(CONCEPTS)[4:10]
    drawings = [sample_drawing(concepts[trial % 6], rng=rng) for trial in range(n_trials)]
    stimuli = [f"{drawing.wnid}_{trial}" for trial, drawing in enumerate(drawings)]
    lines = [
        f"{stimulus}\t{(captions or {}).get(trial, drawing.caption)}\n"
        for trial, (stimulus, drawing) in enumerate(zip(stimuli, drawings, strict=True))
    ]
    artifacts.write_text(folder / "targets" / "caption.txt", "".join(lines))
    table = [[0, 0, 0, t % 6, t, stimuli[t], drawings[t].wnid, "coarse"] for t in range(n_trials)]
    columns = ["subject", "session", "run", "block", "order", "image", "concept", "granularity"]
    write_table(folder / "features" / "s0_trials.csv", columns, table)
    gain = np.linspace(-0.4, 0.4, len(ch_names))[:, None] + np.array([3.0, 2.2, 1.8, 1.1, 0.4])
    features = (gain + rng.normal(0, 0.3, (n_trials, len(ch_names), 5))).astype(np.float32)
    sidecar = {"ch_names": list(ch_names), "bands": list(BANDS), "method": "gaussian"}
    artifacts.write_array(folder / "features" / "s0_de.npy", features, "0", sidecar)
    write_pictures(folder / "images", drawings, stimuli, levels, rng)
    for fold in range(folds):
        write_card(folder / "models" / f"mlp_sd_s0_fold{fold}_model.safetensors", rng)
    made = [[f"models/mlp_sd_s0_fold{fold}_model.safetensors", ""] for fold in range(folds)]
    artifacts.write_json(folder / "predictions" / "s0.npy.json", {"encoder": "mlp_sd", "decoders": made})
    shares = {arm: np.clip(rng.normal(level, 0.2, n_trials), 0, 1) for arm, level in levels.items()}
    rows = [
        [0, t, stimuli[t], drawings[t].wnid, arm, shares[arm][t], 0.1, 1, 1, 0.2, 0.3]
        for arm in levels for t in range(n_trials)
    ]  # fmt: skip
    columns = ["subject", "trial", "stimulus", "concept", "arm", *CHANCE]
    write_table(folder / "scores" / "trials.csv", columns, rows)
    of_concept = {
        wnid: {
            "name": (names or {}).get(wnid, CONCEPTS[wnid].name), "n": n_trials // 6,
            **{arm: {"two_way": float(shares[arm][k::6].mean()), "concept_top1": 0.5} for arm in levels},
        }
        for k, wnid in enumerate(concepts)
    }  # fmt: skip
    summary = {
        "arms": {arm: {metric: score(metric, level) for metric in CHANCE} for arm, level in levels.items()},
        "concepts": of_concept,
        "subjects": {"0": {arm: dict.fromkeys(CHANCE, 0.5) for arm in levels}},
        "n_trials": n_trials, "n_pictures": n_trials, "n_way": 10,
        "unit": exchanged, "exchanged": exchanged, "findings": listed(findings),
    }  # fmt: skip
    if evidence is not None:
        summary |= write_evidence(folder / "scores", of_concept, levels, ch_names, rng, **evidence)
        for arm, level in levels.items():
            summary["arms"][arm]["dinov2"] = {**score("two_way", 0.5 + (level - 0.5) * 0.9), "p_vs_shuffled": None}
            summary["arms"][arm]["swav"] = {
                "value": 0.75 - 0.3 * level, "low": 0.7 - 0.3 * level, "high": 0.8 - 0.3 * level, "p": 0.01,
                "chance": 0.6, "place": (level - 0.5) / 0.47,
            }  # fmt: skip
    artifacts.write_json(folder / "scores" / "summary.json", summary)
    return folder


# Control, its effect, and whether it fired.
CONTROL_ROWS = (("leave-block-out", 0.012, False), ("block-surrogate", 0.31, True), ("baseline-window", -0.004, False),
                ("random-codebook", None, None))  # fmt: skip


def write_evidence(
    folder: Path, concepts: dict[str, Any], levels: dict[str, float], ch_names: tuple[str, ...],
    rng: np.random.Generator, *, n_concepts: int = 6, n_subjects: int = 8, verdict: str = "clean", hostile: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Write evidence, `hostile` in every string; return what summary.json has beside the scores of six metrics."""
    names = {wnid: row["name"] for wnid, row in concepts.items()}
    others = [f"n{90000000 + k}" for k in range(n_concepts - len(names))]
    names |= {wnid: f"concept with a long name {k}{hostile}" for k, wnid in enumerate(others)}
    n, rows = len(names), []
    for arm, level in levels.items():
        near = np.exp(-np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / 2)
        even = np.full((n, n), 1 / n)
        chances = (level - 0.5) * 2 * near / near.sum(1, keepdims=True) + (1 - (level - 0.5) * 2) * even
        counts, ids = [rng.multinomial(10, chance / chance.sum()) for chance in chances], list(names)
        rows += [[arm, ids[t], ids[k], counts[t][k]] for t in range(n) for k in range(n) if counts[t][k]]
    write_table(folder / "confusion.csv", ["arm", "true", "named", "count"], rows)
    time = rng.permutation(n)
    order = [[wnid, name, rank, time[rank]] for rank, (wnid, name) in enumerate(names.items())]
    write_table(folder / "concept_order.csv", ["concept", "name", "semantic", "block"], order)
    lost = {"delta": 0.006, "theta": 0.021, "alpha": 0.064, "beta": 0.118, "gamma": -0.004}
    lines = []
    for kind, share in (("permutation", 1.0), ("occlusion", 0.7)):
        lines += [[kind, "band", band, share * d, share * d - 0.02, share * d + 0.02] for band, d in lost.items()]
        for place, name in enumerate(ch_names):
            drop = share * 0.03 * place / len(ch_names) + rng.normal(0, 0.002)
            lines.append([kind, "electrode", name, drop, drop - 0.01, drop + 0.01])
    write_table(folder / "importance.csv", ["kind", "group", "name", "drop", "low", "high"], lines)
    best = {"metric": "two-way", "model": f"mlp_sd{hostile}", "value": 0.78, "chance": 0.5, "low": 0.74, "high": 0.82,
            "p": 0.0005, "place": 0.6}  # fmt: skip
    numbers = {
        "clean": {"design": "mixed", "compared": 1, "selection": "validation"},
        "block-confounded": {"design": "block", "inside": 1.0, "by_block": 1.0},
        "other-split": {"file": f"s0{hostile}", "more": 0, "stage": "train"},
    }.get(verdict, {})  # fmt: skip
    [said] = listed([finding(verdict, **numbers, **({} if verdict == "other-split" else best))])
    case = {
        "name": f"mlp_sd{hostile}", "verdict": said, "can": listed([finding("tells-seen", **best)]),
        "cannot": listed([finding("shared", column="subject", shared=1, values=1)]),
    }  # fmt: skip
    artifacts.write_json(folder / "audit.json", {"verdict": said, "cases": [case]})
    controls = []
    for name, effect, fired in CONTROL_ROWS:
        reasons = [] if effect is not None else [{**listed([finding("no-embeddings")])[0], "subjects": 1}]
        controls.append({
            "control": name, "effect": effect, "fired": fired, "share": 0.9, "subjects": None, "reasons": reasons,
            "low": None if effect is None else effect - 0.03, "high": None if effect is None else effect + 0.03,
            "p": None if effect is None else 0.0005 if fired else 0.4, "p_holm": None if effect is None else 0.002,
            "notes": listed([finding("hardest-arm", arm=f"mean{hostile}")]),
        })  # fmt: skip
    [overall] = listed([finding("controls", computed=3, missing=1, fired="block-surrogate", loose="",
                                worst="block-surrogate")])  # fmt: skip
    artifacts.write_json(folder / "controls.json", {"overall": overall, "rows": controls})
    forest = []
    for subject, (arm, level) in product(range(n_subjects), levels.items()):
        value = float(np.clip(level + rng.normal(0, 0.05 if arm == "eeg" else 0.01), 0, 1))
        p = 0.0005 if value > 0.58 else 0.2
        forest.append({
            "subject": f"{subject}{hostile}", "arm": arm, "metric": "two_way", "n": 144, "value": value,
            "low": value - 0.05, "high": min(value + 0.05, 1.0), "p": p, "p_holm": min(1.0, p * n_subjects),
        })  # fmt: skip
    rules = {
        rule: {"transductive": rule != "greedy", "n_trials": 144, "n_pictures": 144, "top1": 0.16, "chance1": 1 / 144,
               "top5": 0.45, "chance5": 5 / 144, "median_rank": 6.5, "space": "text targets, 77 x 768"}
        for rule in ("greedy", "hungarian", "csls", "centred greedy")
    }  # fmt: skip
    ranks = {arm: {"effective_rank": {"value": 40 * level, "n_generated": 144}} for arm, level in levels.items()}
    return {
        "forest": forest,
        "retrieval": rules,
        "sets": {**ranks, "shuffled": {}},
        "not_computed": {
            "alexnet2": f"torchvision is not installed{hostile}", "alexnet5": f"torchvision is not installed{hostile}",
            "clip": "openai/clip-vit-large-patch14 is not on this machine",
        },
        "metrics": {
            "dinov2": {"title": f"DINOv2{hostile}", "direction": "higher", "chance": "0.5", "unit": "share",
                       "reference": "Oquab 2023; the second judge", "variant": "mindeye"},
            "effective_rank": {"title": "effective rank", "direction": "higher", "chance": "1 where all are one",
                               "reference": "Roy & Vetterli 2007", "variant": ""},
            "swav": {"title": "SwAV", "direction": "lower", "chance": "the mean over permuted pairs, not 0",
                     "reference": "Scotti 2023 (MindEye)", "variant": "mindeye"},
            "alexnet2": {"title": "AlexNet(2)", "direction": "higher", "chance": "0.5", "reference": "", "variant": ""},
        },
    }  # fmt: skip


def write_table(path: Path, columns: list[str], rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])


def write_pictures(folder: Path, drawings: list, stimuli: list[str], levels: dict[str, float], rng: Any) -> None:
    """Write seen images and, as images of each arm, some of the right and of wrong concepts, with the manifest."""
    lines = []
    (folder / "seen").mkdir(parents=True)
    pixels = [Image.fromarray(render(drawing)) for drawing in drawings]
    for trial, (drawing, stimulus) in enumerate(zip(drawings, stimuli, strict=True)):
        pixels[trial].save(folder / "seen" / f"{stimulus}.png")
        for arm, level in levels.items():
            right = rng.random() < 2 * level - 1
            made = (trial + 6 * rng.integers(1, 5) if right else rng.integers(len(drawings))) % len(drawings)
            file = Path("s0") / arm / f"{trial}_{stimulus}.png"
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            pixels[made].save(folder / file)
            lines.append({
                "subject": 0, "arm": arm, "trial": trial, "stimulus": stimulus, "concept": drawing.wnid,
                "file": file.as_posix(), "seed": 1,
            })  # fmt: skip
    artifacts.write_text(folder / "manifest.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def write_card(path: Path, rng: np.random.Generator) -> None:
    """Write the sidecar of a trained mapper: losses that fall, the validation loss rising again."""
    epochs = np.arange(1, 61)
    train = 0.02 + 0.012 * np.exp(-epochs / 12) + rng.normal(0, 0.0001, 60)
    val = 0.0235 + 0.008 * np.exp(-epochs / 9) + 3e-5 * np.maximum(epochs - 28, 0) + rng.normal(0, 0.0001, 60)
    names = ("epoch", "train_loss", "val_loss")
    history = [dict(zip(names, row, strict=True)) for row in zip(epochs.tolist(), train.tolist(), val.tolist())]
    names = ("val_mse", "val_two_way", "test_mse", "test_two_way")
    values = {"mlp_sd": (0.0239, 0.8, 0.0241, 0.79), "ridge": (0.0252, 0.76, 0.0254, 0.75),
              "mean": (0.0291, 0.5, 0.0292, 0.5)}  # fmt: skip
    scores = {mapper: dict(zip(names, row, strict=True)) for mapper, row in values.items()}
    sidecar = {"history": history, "selected_epoch": int(epochs[val.argmin()]), "scores": scores, "findings": []}
    artifacts.write_json(artifacts.sidecar_path(path), sidecar)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes a run folder below the test's own folder."""
    return partial(make_folder, tmp_path / "run")


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """Function that writes a run folder anywhere."""
    return make_folder
