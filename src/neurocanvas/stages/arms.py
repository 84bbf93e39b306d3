"""Which trials are drawn, and what each arm draws them from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.scale import kept
from neurocanvas.stages.run import Run
from neurocanvas.stages.shards import STAGE, Work, embed_texts
from neurocanvas.stages.sketching import sketch
from neurocanvas.targets.captions import prompt


def chosen(concepts: np.ndarray, folds: np.ndarray, most: int | None) -> np.ndarray:
    """Choose which test trials get pictures: all, or at most so many, spread evenly over concepts and folds."""
    codes = [np.unique(column, return_inverse=True)[1] for column in (concepts, folds)]
    turn = np.zeros(len(concepts), dtype=np.int64)
    for pair in np.unique(codes, axis=1).T:
        members = np.flatnonzero((codes[0] == pair[0]) & (codes[1] == pair[1]))
        turn[members] = np.arange(len(members))
    return np.sort(np.lexsort((*codes, turn))[:most])


@dataclass(frozen=True)
class ChosenTrials:
    """The test trials of one subject that get pictures."""

    subject: int
    places: np.ndarray
    rows: np.ndarray
    folds: np.ndarray
    stimulus: np.ndarray
    concept: np.ndarray
    seen: np.ndarray
    predicted: np.ndarray
    means: np.ndarray
    card: dict[str, Any]

    def entries(self, run: Run, arm: str, part: slice = slice(None)) -> list[dict[str, Any]]:
        """Give the manifest's entries of an arm."""
        from neurocanvas.generation.diffusion import picture_seed

        seed = partial(picture_seed, run.settings.generate.seed, arm, self.subject)
        return [
            {
                "subject": self.subject, "arm": arm, "trial": int(row), "stimulus": str(stimulus),
                "concept": str(concept), "predictions": self.card["sha256"][:16],
                "file": f"s{self.subject}/{arm}/{row:05d}_{Path(stimulus).stem}.png", "seed": seed(int(row)),
            }
            for row, stimulus, concept in zip(self.rows[part], self.stimulus[part], self.concept[part], strict=True)
        ]  # fmt: skip


def chosen_trials(run: Run, subject: int) -> ChosenTrials:
    """Choose the trials of a subject that get pictures; no prediction is read."""
    path, trials = run.folder / "predictions" / f"s{subject}.npy", run.subjects[subject]
    predicted = store.read_array(path, "predictions; `neurocanvas predict` makes them")
    means = store.read_array(path.with_name(f"s{subject}_mean.npy"), "mean targets; `neurocanvas predict` makes them")
    card = store.read_card(path)
    if max(card["trials"]) >= len(trials) or "known" not in card:
        raise NeuroCanvasError(f"{path}: made for other trials or by another version; run `neurocanvas predict` again.")
    most = run.settings.generate.max_trials
    places = chosen(trials.column("concept")[card["trials"]], np.array(card["folds"]), most)
    rows, folds = np.array(card["trials"])[places], np.array(card["folds"])[places]
    shown = trials.select(rows)
    return ChosenTrials(
        subject, places, rows, folds, shown.column("stimulus"), shown.column("concept"), run.stimulus_rows(shown),
        predicted, means, card,
    )  # fmt: skip


def check_arms(run: Run, trials: ChosenTrials) -> None:
    """Refuse arms that draw from predictions which the generator cannot take."""
    from neurocanvas.generation.conditioning import ARMS

    predicted, needed = trials.predicted.shape[1:], run.embeddings().shape[1:]
    refused = [arm for arm in run.settings.generate.arms if arm in ARMS and ARMS[arm].from_prediction]
    if refused and predicted != needed:
        others = ", ".join(arm for arm, how in ARMS.items() if not how.from_prediction)
        raise NeuroCanvasError(
            f"--arm {refused[0]}: draws from predictions, and these have shape {predicted} where the generator takes "
            f"{needed}. Choose among {others}, or embed and train with the family that draws and embed.target text."
        )


def make_work(run: Run, subject: int, arm: str, part: slice) -> Work:
    """Make the conditions of some of a subject's chosen trials; only what they need is read."""
    from neurocanvas.generation.conditioning import ARMS, ArmInputs, derangement
    from neurocanvas.generation.diffusion import picture_seed

    trials = kept(STAGE, "trials", (run, subject), lambda: chosen_trials(run, subject))
    seed = partial(picture_seed, run.settings.generate.seed, arm, subject)
    targets, embeddings, stimuli = run.targets(), run.embeddings(), run.dataset[1]
    known = np.zeros((part.stop - part.start, len(targets)), bool)
    for row, fold in enumerate(trials.folds[part]):
        known[row, trials.card["known"][fold]] = True

    def dealt() -> np.ndarray:
        order = derangement(trials.concept, rng=np.random.default_rng(seed(-1)))
        return _rescaled(run, trials, order[part])

    own = np.arange(len(trials.rows))[part]
    inputs = ArmInputs(
        np.asarray(trials.predicted[trials.places[part]], np.float32), _rescaled(run, trials, own),
        np.asarray(trials.means)[trials.folds[part]], np.asarray(embeddings[trials.seen[part]], np.float32), dealt,
        np.array([seed(int(row)) for row in trials.rows[part]]), targets, embeddings, known,
        np.array([stimuli.concepts[name] for name in run.stimuli]), np.array(run.stimuli),
        lambda concepts: embed_texts(run, [prompt(stimuli.names[c]) for c in concepts]),
        lambda: sketch(run, subject)[trials.places[part]],
    )  # fmt: skip
    starts = ARMS[arm].start
    over = [] if starts is None else starts(inputs)
    return Work(arm, ARMS[arm].condition(inputs), inputs.predicted, inputs.mean, trials.entries(run, arm, part), over)


def _rescaled(run: Run, trials: ChosenTrials, places: np.ndarray) -> np.ndarray:
    """Predictions of some chosen trials, as the settings want them for the generator."""
    from neurocanvas.generation.conditioning import match_norms, rescale, token_norms

    scale, folds = run.settings.generate.scale, trials.folds[places]
    predicted = np.asarray(trials.predicted[trials.places[places]], np.float32)
    if scale == "token-norm":
        norms = kept(STAGE, "norms", (run, trials.subject), lambda: np.stack(
            [token_norms(run.targets(), np.array(trained)) for trained in trials.card["known"]]
        ))  # fmt: skip
        return match_norms(predicted, norms[folds])
    gains = np.array(trials.card["gains"])[folds] if scale == "affine" else np.ones(len(places))
    return rescale(predicted, np.asarray(trials.means)[folds], gains)
