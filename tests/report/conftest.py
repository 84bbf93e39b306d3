"""A small run folder with everything that the report reads, laid out as a real run leaves it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neurocanvas import store
from neurocanvas.config import RunSettings, save_settings
from neurocanvas.datasets.pictures import CONCEPTS, render, sample_drawing
from neurocanvas.montage import BANDS, CH_NAMES
from neurocanvas.trials import COLUMNS

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


def write_run(
    folder: Path,
    *,
    n_trials: int = 30,
    ch_names: tuple[str, ...] = tuple(CH_NAMES),
    levels: dict[str, float] = LEVELS,
    warnings: tuple[str, ...] = (),
    exchanged: str = "trials",
    captions: dict[int, str] | None = None,
    names: dict[str, str] | None = None,
    folds: int = 1,
) -> Path:
    """Write a run of one subject, `n_trials` test trials and six concepts."""
    rng = np.random.default_rng(3)
    save_settings(RunSettings.model_validate({"name": "tiny", "simulate": {}}), folder / "run.toml")
    concepts = list(CONCEPTS)[4:10]
    drawings = [sample_drawing(concepts[trial % 6], rng=rng) for trial in range(n_trials)]
    stimuli = [f"{drawing.wnid}_{trial}" for trial, drawing in enumerate(drawings)]
    lines = [
        f"{stimulus}\t{(captions or {}).get(trial, drawing.caption)}\n"
        for trial, (stimulus, drawing) in enumerate(zip(stimuli, drawings, strict=True))
    ]
    store.write_text(folder / "targets" / "caption.txt", "".join(lines))
    table = [[0, 0, 0, t % 6, t, stimuli[t], drawings[t].wnid, "coarse"] for t in range(n_trials)]
    write_table(folder / "features" / "s0_trials.csv", list(COLUMNS), table)
    gain = np.linspace(-0.4, 0.4, len(ch_names))[:, None] + np.array([3.0, 2.2, 1.8, 1.1, 0.4])
    features = (gain + rng.normal(0, 0.3, (n_trials, len(ch_names), 5))).astype(np.float32)
    card = {"ch_names": list(ch_names), "bands": list(BANDS), "method": "gaussian"}
    store.write_array(folder / "features" / "s0_de.npy", features, "0", card)
    write_pictures(folder / "images", drawings, stimuli, levels, rng)
    for fold in range(folds):
        write_card(folder / "models" / f"mlp_sd_s0_fold{fold}_model.safetensors", rng)
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
        "unit": exchanged, "exchanged": exchanged, "warnings": list(warnings),
    }  # fmt: skip
    store.write_json(folder / "scores" / "summary.json", summary)
    return folder


def write_table(path: Path, columns: list[str], rows: list[list[Any]]) -> None:
    """Write a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])


def write_pictures(
    folder: Path, drawings: list[Any], stimuli: list[str], levels: dict[str, float], rng: np.random.Generator
) -> None:
    """Write seen pictures and, as pictures of each arm, some of the right and of wrong concepts, with the manifest."""
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
    store.write_text(folder / "manifest.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def write_card(path: Path, rng: np.random.Generator) -> None:
    """Write the card of a trained mapper: losses that fall, the validation loss rising again."""
    epochs = np.arange(1, 61)
    train = 0.02 + 0.012 * np.exp(-epochs / 12) + rng.normal(0, 0.0001, 60)
    val = 0.0235 + 0.008 * np.exp(-epochs / 9) + 3e-5 * np.maximum(epochs - 28, 0) + rng.normal(0, 0.0001, 60)
    history = [
        {"epoch": int(e), "train_loss": float(t), "val_loss": float(v)}
        for e, t, v in zip(epochs, train, val, strict=True)
    ]
    scores = {
        "mlp_sd": {"val_mse": 0.0239, "test_mse": 0.0241, "val_two_way": 0.8, "test_two_way": 0.79},
        "ridge": {"val_mse": 0.0252, "test_mse": 0.0254, "val_two_way": 0.76, "test_two_way": 0.75},
        "mean": {"val_mse": 0.0291, "test_mse": 0.0292, "val_two_way": 0.5, "test_two_way": 0.5},
    }
    card = {"history": history, "selected_epoch": int(epochs[val.argmin()]), "scores": scores, "warnings": []}
    store.write_json(store.card_path(path), card)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a run folder below the test's own folder."""

    def make(**changes: Any) -> Path:
        return write_run(tmp_path / "run", **changes)

    return make
