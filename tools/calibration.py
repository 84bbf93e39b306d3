"""False alarms of every p-value and coverage of every interval on data without any link.

    python tools/calibration.py [--sets 1000] [--only DESIGN]

Writes the tables of docs/calibration.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from joblib import Parallel, delayed
from pages import write_table
from scipy.stats import binomtest

from neurocanvas.audit.controls.inputs import shrinkage_lda
from neurocanvas.audit.overlap import Predictions, answer_scores, neighbour_errors
from neurocanvas.config import EvaluateSettings
from neurocanvas.data.splits import EXCHANGED, Fold, exchangeable_units, make_split
from neurocanvas.data.trials import Trials, without_signal
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.benchmark import Cell, mark_best, summarise_cells
from neurocanvas.evaluation.identification import similarity
from neurocanvas.evaluation.statistics import draw_cells, holm, mean_interval, paired_permutation_p
from neurocanvas.evaluation.summary import exchangeable, summarise

COUNT, DIMENSIONS = 199, 16
SETTINGS = EvaluateSettings(permutations=COUNT, resamples=400)
# Name of a p-value or interval -> whether it is a false alarm at .05, or misses the truth; None where it is not there.
Outcomes = dict[str, bool | None]


def table(subject: int, image: np.ndarray, concept: np.ndarray, **columns: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of one subject's trials."""
    names = {"image": [f"i{number}" for number in image], "concept": [f"c{number}" for number in concept]}
    texts = {name: np.array(values) for name, values in names.items()}
    return {"subject": np.full(len(image), str(subject)), "order": np.arange(len(image)), **texts, **columns}


def joined(tables: list[dict[str, np.ndarray]]) -> Trials:
    return without_signal({name: np.concatenate([one[name] for one in tables]) for name in tables[0]})


def shown(rng: np.random.Generator, images: int, showings: int, concepts: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Images in random order, and their concepts."""
    image = rng.permutation(np.repeat(np.arange(images), showings))
    return image, image % concepts


def drift(rng: np.random.Generator, n: int, width: int, tau: float) -> np.ndarray:
    """First-order autoregressive noise, (n, width)."""
    keep, values = np.exp(-1 / tau), rng.normal(size=(n, width))
    for row in range(1, n):
        values[row] = keep * values[row - 1] + np.sqrt(1 - keep**2) * values[row]
    return values


def answers(trials: Trials, folds: list[Fold], features: np.ndarray) -> np.ndarray:
    """Scores of concepts by a shrinkage LDA trained in every fold, (n_trials, n_concepts); NaN where not tested."""
    concept = np.unique(trials.y, return_inverse=True)[1]
    scores = np.full((len(trials), concept.max() + 1), np.nan)
    for fold in folds:
        fitted = np.concatenate([fold.train, fold.validation])
        named = shrinkage_lda(features[fitted], concept[fitted], features[fold.test])
        scores[fold.test] = np.eye(scores.shape[1])[named]
    return scores


def mapped(trials: Trials, folds: list[Fold], features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Targets predicted by ridge regression in every fold, (n_trials, n_dimensions); NaN where not tested."""
    predicted, own = np.full((len(trials), targets.shape[1]), np.nan), targets[image_of(trials)]
    for fold in folds:
        fitted = np.concatenate([fold.train, fold.validation])
        x = features[fitted] - features[fitted].mean(axis=0)
        weights = np.linalg.solve(x.T @ x + 10 * np.eye(x.shape[1]), x.T @ (own[fitted] - own[fitted].mean(axis=0)))
        predicted[fold.test] = features[fold.test] @ weights
    return predicted


def image_of(trials: Trials) -> np.ndarray:
    return np.unique(trials.column("image"), return_inverse=True)[1]


def one_fold(trials: Trials, tested: np.ndarray) -> list[Fold]:
    """One fold per subject that tests its rows of `tested`."""
    subject, folds = trials.column("subject"), []
    for name in np.unique(subject[tested]):
        rest = np.flatnonzero(~tested & (subject == name))
        rows = np.flatnonzero(tested & (subject == name))
        folds.append(Fold(f"subject {name}", rest[1::2], rest[::2], rows, "", names=trials.names))
    return folds


def held_out_images(rng, images: int, showings: int, subjects: int = 1) -> Iterator[object]:
    """Images that train are others than those tested; predictions depend on the image, but arbitrarily."""
    tables = []
    for subject in range(subjects):
        image, concept = shown(rng, images + 8, showings)
        tables.append(table(subject, image, concept))
    trials = joined(tables)
    tested = np.isin(trials.column("image"), [f"i{number}" for number in range(images)])
    alike = rng.normal(size=(subjects, images + 8, DIMENSIONS))[trials.column("subject").astype(int), image_of(trials)]
    return trials, one_fold(trials, tested), alike + 0.7 * rng.normal(size=alike.shape)


def zero_shot(rng, concepts: int = 12, images: int = 4, subjects: int = 1):
    """Concepts that train are others than those tested; predictions depend on the concept, but arbitrarily."""
    tables = []
    for subject in range(subjects):
        image = rng.permutation(np.arange((concepts + 2) * images))
        tables.append(table(subject, image, image % (concepts + 2)))
    trials = joined(tables)
    concept = np.unique(trials.y, return_inverse=True)[1]
    tested = np.isin(trials.y, [f"c{number}" for number in range(concepts)])
    alike = rng.normal(size=(subjects, concepts + 2, DIMENSIONS))[trials.column("subject").astype(int), concept]
    return trials, one_fold(trials, tested), alike + 0.5 * rng.normal(size=alike.shape)


def leave_subject_out(rng, subjects: int = 4, concepts: int = 6, images: int = 24):
    """EEG tells concepts in everybody, in nobody's way as in another's."""
    tables = []
    for subject in range(subjects):
        image, concept = shown(rng, images, 1, concepts)
        tables.append(table(subject, image, concept))
    trials = joined(tables)
    concept = np.unique(trials.y, return_inverse=True)[1]
    of_subject = trials.column("subject").astype(int)
    features = rng.normal(size=(subjects, concepts, 12))[of_subject, concept] + rng.normal(size=(len(trials), 12))
    names = [str(number) for number in range(subjects)]
    return trials, [make_split(trials, "leave-subject-out", subject=name)[0] for name in names], features


def same_images(rng, images: int = 8, showings: int = 30, subjects: int = 1):
    """The same images in every run, held-out runs, no response to them."""
    runs, tables = 5, []
    for subject in range(subjects):
        image = np.concatenate([rng.permutation(np.repeat(np.arange(images), showings // runs)) for _ in range(runs)])
        run = np.repeat(np.arange(runs), len(image) // runs).astype(str)
        tables.append(table(subject, image, image % 4, run=run))
    trials = joined(tables)
    return trials, folds_of(trials, "leave-run-out"), rng.normal(size=(len(trials), 10))


def folds_of(trials: Trials, protocol: str, **options: object) -> list[Fold]:
    names = np.unique(trials.column("subject"))
    return [fold for name in names for fold in make_split(trials, protocol, subject=name, **options)]


def blocks(rng, repeats: int = 3, concepts: int = 8, length: int = 6, subjects: int = 1):
    """Concepts in blocks, whole blocks held out, slow drift and no response."""
    tables = []
    for subject in range(subjects):
        concept = np.concatenate([np.repeat(rng.permutation(concepts), length) for _ in range(repeats)])
        tables.append(table(subject, np.arange(len(concept)), concept))
    trials = joined(tables)
    features = drift(rng, len(trials), 10, 15.0) + rng.normal(size=(len(trials), 10))
    return trials, folds_of(trials, "leave-block-out"), features


def part_blocked(rng, concepts: int = 6):
    """Four runs in random order and two in blocks; whole runs held out, slow drift and no response."""
    image = np.arange(concepts * 8 * 6)
    orders = [rng.permutation(np.repeat(np.arange(concepts), 8)) for _ in range(4)]
    orders += [np.repeat(rng.permutation(concepts), 8) for _ in range(2)]
    trials = joined([table(0, image, np.concatenate(orders), run=np.repeat(np.arange(6), concepts * 8).astype(str))])
    features = drift(rng, len(trials), 10, 15.0) + rng.normal(size=(len(trials), 10))
    return trials, folds_of(trials, "leave-run-out"), features


def cross_validated(rng, images: int = 80, concepts: int = 4, subjects: int = 1, rare: bool = False):
    """Five folds of images shown once, and no response; with `rare`, one of two concepts has a fifth of the images."""
    tables = []
    for subject in range(subjects):
        image = rng.permutation(images)
        tables.append(table(subject, image, (image % 5 > 0).astype(int) if rare else image % concepts))
    trials = joined(tables)
    return trials, folds_of(trials, "kfold-by-stimulus", folds=5), rng.normal(size=(len(trials), 10))


# Name of a design -> how it is drawn, and whether the last value is features (a decoder is trained) or predictions.
DESIGNS: dict[str, tuple[Callable, bool]] = {
    "40 images once": (lambda rng: held_out_images(rng, 40, 1), False),
    "40 images twice": (lambda rng: held_out_images(rng, 40, 2), False),
    "20 images 6 times": (lambda rng: held_out_images(rng, 20, 6), False),
    "12 images 30 times": (lambda rng: held_out_images(rng, 12, 30), False),
    "same 8 images in all runs": (same_images, True),
    "5 folds": (cross_validated, True),
    "5 folds, concepts 1 : 4": (lambda rng: cross_validated(rng, rare=True), True),
    "leave-subject-out, 4 subjects": (leave_subject_out, True),
    "leave-subject-out, 10 subjects": (lambda rng: leave_subject_out(rng, 10), True),
    "12 concepts held out": (zero_shot, False),
    "24 blocks": (blocks, True),
    "part-blocked session": (part_blocked, True),
    "2 subjects": (lambda rng: held_out_images(rng, 30, 1, 2), False),
    "5 subjects": (lambda rng: held_out_images(rng, 20, 2, 5), False),
    "16 subjects": (lambda rng: held_out_images(rng, 12, 2, 16), False),
    "30 subjects": (lambda rng: held_out_images(rng, 12, 1, 30), False),
}


def missed(score: dict, truth: float) -> bool | None:
    """Whether an interval misses the truth."""
    return None if score["low"] is None else not score["low"] <= truth <= score["high"]


def measure(design: str, seed: int) -> Outcomes:
    """Draw one data set of a design, and ask everything that the product prints of it."""
    draw, trains = DESIGNS[design]
    for attempt in range(9):  # once in thousands of data sets a random order looks blocked and is refused
        rng = np.random.default_rng([list(DESIGNS).index(design), seed, attempt])
        try:
            trials, folds, values = draw(rng)
            break
        except NeuroCanvasError:
            continue
    targets = rng.normal(size=(len(np.unique(trials.column("image"))), DIMENSIONS))
    concepts = np.unique(trials.y)
    predicted = mapped(trials, folds, values, targets) if trains else values
    scores = answers(trials, folds, values) if trains else values[:, : len(concepts)]
    return identification(trials, folds, predicted, targets, rng) | classification(trials, folds, scores, rng)


def tested_columns(trials: Trials, folds: list[Fold]) -> tuple[np.ndarray, dict[str, np.ndarray], str]:
    """Tested rows, and what statistics read of them."""
    kinds, units = zip(*(exchangeable_units(trials, fold) for fold in folds), strict=True)
    exchanged, rows = min(kinds, key=EXCHANGED.index), np.concatenate([fold.test for fold in folds])
    number = np.repeat(np.arange(len(folds)), [len(fold.test) for fold in folds])
    columns = {
        "subject": trials.column("subject")[rows], "fold": np.zeros_like(number) if exchanged == "blocks" else number,
        "unit": np.concatenate(units), "trial": rows, "stimulus": trials.column("image")[rows],
        "concept": trials.y[rows], "block": trials.column("block")[rows],
    }  # fmt: skip
    return rows, columns, exchanged


def identification(trials: Trials, folds: list[Fold], predicted: np.ndarray, targets: np.ndarray, rng) -> Outcomes:
    """Two-way identification and top-1 concept among targets, as `evaluate` tests them."""
    rows, columns, exchanged = tested_columns(trials, folds)
    gallery = sorted({*columns["stimulus"]})
    known = np.unique(trials.column("image"))
    seen = targets[np.searchsorted(known, gallery)]
    concepts = {name: name for name in np.unique(columns["concept"])}
    cells = draw_cells(*exchangeable(columns), rng=np.random.default_rng([1, 1]))
    true = np.searchsorted(gallery, columns["stimulus"])
    of_concept = trials.y[np.unique(trials.column("image"), return_index=True)[1]]
    concept_targets = np.stack([targets[of_concept == name].mean(axis=0) for name in concepts])
    arms = {}
    for arm, values in (("eeg", predicted[rows]), ("shuffled", rng.normal(size=(len(rows), targets.shape[1])))):
        sim = similarity(values, seen)
        in_cells = np.where(cells[1] < 0, np.nan, sim[np.arange(len(rows))[:, None], true[cells[1]]])
        arms[arm] = {
            "similarity": sim, "concept": similarity(values, concept_targets), "pixcorr": in_cells, "ssim": in_cells,
        }  # fmt: skip
    together = len(folds) > len(np.unique(columns["subject"])) or "leave-subject-out" in folds[0].name
    summary, _ = summarise(
        arms, columns, gallery, concepts, SETTINGS, exchanged=exchanged, cross_validated=together, cells=cells, rng=rng
    )
    eeg, outcomes = summary["arms"]["eeg"], Outcomes()
    for metric in ("two_way", "concept_top1", "pixcorr"):
        outcomes[f"p, {metric}"] = eeg[metric]["p"] <= 0.05
    of_subjects = eeg["two_way"].get("p_subjects")
    outcomes["p over subjects, two_way"] = None if of_subjects is None else of_subjects <= 0.05
    outcomes["p against shuffled, two_way"] = eeg["two_way"]["p_vs_shuffled"] <= 0.05
    outcomes["interval, two_way"] = missed(eeg["two_way"], 0.5)
    return outcomes


def classification(trials: Trials, folds: list[Fold], scores: np.ndarray, rng) -> Outcomes:
    """Accuracy, as `classify` and `audit` test it."""
    rows, columns, _ = tested_columns(trials, folds)
    labels = np.unique(trials.y)
    true, named = np.searchsorted(labels, columns["concept"]), scores[rows].argmax(axis=1)
    number = np.repeat(np.arange(len(folds)), [len(fold.test) for fold in folds])
    protocol, cells = folds[0].name.partition(",")[0], []
    for subject in np.unique(columns["subject"]):
        own = columns["subject"] == subject
        cells.append(Cell(protocol, "all", "m", "M", subject, scores[rows][own], true[own], number[own],
                          columns["unit"][own], {"selected": 0.0, "final": 0.0}, 0.0, ()))  # fmt: skip
    [row] = summarise_cells(cells, count=COUNT, seed=int(rng.integers(2**31)))
    strata, units = exchangeable(columns)
    answered = Predictions("m", np.arange(len(rows)), named, strata, units)
    subject = np.unique(columns["subject"], return_inverse=True)[1]
    [audited] = answer_scores([answered], true, subject, rng=rng, count=COUNT)
    outcomes: Outcomes = {
        "p, accuracy": row["p"] <= 0.05,
        "p over subjects, accuracy": None if row["p_subjects"] is None else row["p_subjects"] <= 0.05,
    }
    if len(folds) == len(cells) and protocol != "leave-subject-out":  # a table's folds are not known
        outcomes |= {"p, audit": audited["p"] <= 0.05, "interval, audit": missed(audited, audited["chance"])}
    return outcomes


def over_subjects(n_subjects: int, seed: int) -> Outcomes:
    """Tests and intervals that take subjects as units; models that are equally good."""
    rng = np.random.default_rng([100, n_subjects, seed])
    equal = 0.4 + 0.05 * rng.normal(size=(n_subjects, 1)) + 0.03 * rng.normal(size=(n_subjects, 8))
    best = mark_best({f"m{k}": equal[:, k] for k in range(8)}, rng=rng, count=COUNT)
    difference = rng.normal(size=n_subjects)
    p = paired_permutation_p(difference, np.zeros(n_subjects), np.arange(n_subjects), rng=rng, count=COUNT)
    low, high = mean_interval(equal[:, 0], np.arange(n_subjects), rng=rng, share=True)
    return {
        "best of 8 models": any(p is not None and p <= 0.05 for p in best.values()),
        "sign flips": p <= 0.05, "interval, accuracy": not low <= 0.4 <= high,
    }  # fmt: skip


def next_door(planted: tuple[int, float], seed: int) -> Outcomes:
    """Errors in a blocked design that have nothing to do with time, but for a planted share of them."""
    n_blocks, share = planted
    rng = np.random.default_rng([200, n_blocks, seed])
    concept = np.repeat(np.arange(n_blocks), 10)
    alike = rng.dirichlet(np.full(n_blocks, 0.3), size=n_blocks)  # every concept has its own errors
    wrong = np.array([rng.choice(n_blocks, p=alike[number]) for number in concept])
    beside = np.clip(concept + rng.choice([-1, 1], len(concept)), 0, n_blocks - 1)
    wrong = np.where(rng.random(len(concept)) < share, beside, wrong)
    named = np.where(rng.random(len(concept)) < 0.3, concept, wrong)
    near = neighbour_errors(concept, concept, np.zeros_like(concept), named, rng=rng)
    return {"errors next door" + ", power" * (share > 0): None if near is None else near["p"] <= 0.05}


# Sign flips of fewer subjects than this cannot reach .05; the comparison with the best model needs one more.
REACHES = 5


def tasks() -> dict[str, tuple[Callable, object]]:
    """Name of a design -> the function that draws and asks, and its first argument."""
    named: dict[str, tuple[Callable, object]] = {name: (measure, name) for name in DESIGNS}
    named |= {f"{n} subjects as units": (over_subjects, n) for n in (3, 5, 8, 16, 30)}
    blocks_of = {"errors of their own": 0.0, "a fifth of the errors next door": 0.2}
    return named | {
        f"{n} blocks, {name}": (next_door, (n, share)) for n in (24, 80) for name, share in blocks_of.items()
    }


def judged(lines: list[tuple[str, str, int, int]]) -> list[str]:
    """Which rates are significantly too high or too low after Holm's correction, and which coverages fall short."""
    tests = [line for line in lines if "interval" not in line[1] and "power" not in line[1]]
    texts = []
    for text, level, side in (("above .05", 0.05, "greater"), ("below .02", 0.02, "less")):
        reach = [line for line in tests if side == "greater" or not (
            "subjects" in line[1] + line[0]
            and int("0" + "".join(filter(str.isdigit, line[0]))) < REACHES + line[1].startswith("best")
        )]  # fmt: skip
        p = holm([binomtest(k, n, level, alternative=side).pvalue for *_, k, n in reach])
        off = [
            f"{name}, {what} ({k / n:.3f})"
            for (name, what, k, n), value in zip(reach, p, strict=True) if value < 0.05
        ]  # fmt: skip
        texts.append(f"Rates significantly {text}, of {len(reach)}: {'; '.join(off) or 'none'}.")
    short = [f"{line[0]}, {line[1]} ({1 - line[2] / line[3]:.3f})" for line in lines
             if "interval" in line[1] and 1 - line[2] / line[3] < 0.93]  # fmt: skip
    return [*texts, f"Coverages below .93: {'; '.join(short) or 'none'}."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--only", default="", help="designs whose names hold this; nothing is written")
    options = parser.parse_args()
    lines = []
    for name, (function, argument) in tasks().items():
        if options.only not in name:
            continue
        sets = Parallel(2)(delayed(function)(argument, seed) for seed in range(options.sets))
        for what in sets[0]:
            values = [one[what] for one in sets if one[what] is not None]
            if values:
                lines.append((name, what, sum(values), len(values)))
                print(f"{name:36} {what:30} {sum(values) / len(values):.3f} of {len(values)}", flush=True)
    print("\n".join(judged(lines)))
    if not options.only:
        rows = ["| design | tested | rate | data sets |", "|---|---|--:|--:|"]
        for name, what, k, n in lines:
            rate = f"{1 - k / n if 'interval' in what else k / n:.3f}".removeprefix("0")
            rows.append(f"| {name} | {what.replace('interval', 'coverage of the interval')} | {rate} | {n} |")
        write_table("calibration.md", "rates", rows)
        write_table("calibration.md", "judged", judged(lines))


if __name__ == "__main__":
    main()
