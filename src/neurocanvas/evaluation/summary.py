"""All scores of a run, with chance, interval, p-value and place, from tables that are already computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neurocanvas.config import EvaluateSettings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.identification import (
    concept_top_k_table,
    n_way_top_k_table,
    read_true,
    two_way_table,
)
from neurocanvas.evaluation.statistics import (
    bootstrap_interval,
    null_means,
    paired_permutation_p,
    permutation_p,
    permutations,
    place,
    smallest_p,
)

METRICS = ("two_way", "n_way", "concept_top1", "concept_top5", "pixcorr", "ssim")
"""Names of the scores in summary.json and trials.csv; more is better in each."""

TABLES = ("similarity", "concept", "pixcorr", "ssim")
"""What each arm brings: similarity, PixCorr and SSIM to every picture, the judge's score of every concept."""

TRIAL_COLUMNS = ("subject", "trial", "stimulus", "concept", "block", "fold")
"""What is known of every trial."""

MANY_SUBJECTS = 5
"""From this many subjects on, intervals resample subjects; below it, trials or blocks within each subject."""

FEW_UNITS = 20
"""Below this many units, intervals are rough and a warning says so."""

LARGE_SMALLEST_P = 0.01
"""Where no p-value can be below this, a warning says so."""

LOW_ORACLE = 0.75
"""An oracle arm with a lower two-way score cannot serve as ceiling."""


def score_tables(arm: Mapping[str, np.ndarray], n_way: int) -> dict[str, np.ndarray]:
    """Score of every trial under every metric, for every picture or concept that could have been true.

    Parameters
    ----------
    arm : dict of str to array
        The `TABLES` of one arm: ``similarity``, ``pixcorr``, ``ssim`` of shape (n_trials, n_pictures) and
        ``concept`` of shape (n_trials, n_concepts).
    n_way : int
        Pictures to choose from; reduced to the size of the gallery.

    Returns
    -------
    dict of str to array
        A table for each of `METRICS`.

    Raises
    ------
    NeuroCanvasError
        If a table is missing or is not a table of finite numbers (`pixcorr` and `ssim` may hold NaN where no
        permutation reads them).
    """
    missing = [name for name in TABLES if name not in arm]
    if missing:
        raise NeuroCanvasError(
            f"arm: the tables {', '.join(TABLES)} are needed; {', '.join(missing)} is missing."
        )
    sim = np.asarray(arm["similarity"])
    return {
        "two_way": two_way_table(sim),
        "n_way": n_way_top_k_table(sim, min(n_way, sim.shape[-1])),
        "concept_top1": concept_top_k_table(arm["concept"], 1),
        "concept_top5": concept_top_k_table(arm["concept"], 5),
        "pixcorr": np.asarray(arm["pixcorr"], dtype=np.float64),
        "ssim": np.asarray(arm["ssim"], dtype=np.float64),
    }


def exchangeable(trials: Mapping[str, np.ndarray], blocked: bool) -> tuple[str, np.ndarray, np.ndarray]:
    """What may be exchanged, and within what.

    Parameters
    ----------
    trials : dict of str to array, shape (n_trials,)
        The columns `TRIAL_COLUMNS`.
    blocked : bool
        Whether each concept was shown in a block.

    Returns
    -------
    unit : "trials" or "blocks"
    strata : array of int, shape (n_trials,)
        Subject and fold in a rapid design (each fold has its own mapper and its own pictures); the subject in
        a blocked one.
    units : array of int, shape (n_trials,)
        The trial itself, or its block.
    """
    names = ("subject",) if blocked else ("subject", "fold")
    strata = np.unique(np.stack([trials[name] for name in names]), axis=1, return_inverse=True)[1]
    if not blocked:
        return "trials", strata, np.arange(len(strata))
    units = np.unique(np.stack([trials["subject"], trials["block"]]), axis=1, return_inverse=True)[1]
    return "blocks", strata, units


def summarise(
    arms: Mapping[str, Mapping[str, np.ndarray]],
    trials: Mapping[str, np.ndarray],
    gallery: Sequence[str],
    concepts: Mapping[str, str],
    settings: EvaluateSettings,
    *,
    blocked: bool,
    rng: np.random.Generator,
    warnings: Sequence[str] = (),
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Score every arm.

    Parameters
    ----------
    arms : dict of str to dict of str to array
        The `TABLES` of each arm; all arms have the same trials in the same order.
    trials : dict of str to array, shape (n_trials,)
        The columns `TRIAL_COLUMNS`.
    gallery : sequence of str
        The distinct stimuli behind the columns of `similarity`, `pixcorr` and `ssim`.
    concepts : dict of str to str
        Concept to English name, in the order of the columns of `concept`.
    settings : EvaluateSettings
    blocked : bool
        Whether each concept was shown in a block: then whole blocks are exchanged.
    rng : numpy.random.Generator
        Where permutations and resamples are drawn from; every arm and metric gets the same ones.
    warnings : sequence of str
        What is already known to be wrong (from the splits); kept, in front.

    Returns
    -------
    summary : dict
        ``arms`` (per arm and metric: value, low, high, p, chance, place; p_vs_shuffled too for `eeg`),
        ``concepts``, ``subjects``, ``n_trials``, ``n_pictures``, ``n_way`` (pictures really chosen from),
        ``unit`` (what intervals resample), ``exchanged`` (what p-values exchange), ``warnings``.
    rows : list of dict
        One per arm and trial, with every score.

    Raises
    ------
    NeuroCanvasError
        If a table does not fit the trials, the gallery or the concepts, or holds NaN where it is read.

    Notes
    -----
    Chance is exact for identification (1/2, 1/n, k/n_concepts) and the permutation mean for PixCorr and SSIM.
    """
    true = {
        "stimulus": _true_columns(trials, "stimulus", gallery),
        "concept": _true_columns(trials, "concept", list(concepts)),
    }
    tables = {arm: score_tables(given, settings.n_way) for arm, given in arms.items()}
    scores = {arm: _read_scores(arm, given, true, gallery, concepts) for arm, given in tables.items()}
    exchanged, strata, units = exchangeable(trials, blocked)
    permuted = permutations(strata, units, settings.permutations, rng=rng)
    nulls = {
        arm: {metric: null_means(table, true[_label(metric)], permuted) for metric, table in given.items()}
        for arm, given in tables.items()
    }
    by_subject = len(np.unique(trials["subject"])) >= MANY_SUBJECTS
    unit = "subjects" if by_subject else exchanged
    units_in = (trials["subject"], None) if by_subject else (units, trials["subject"])
    measured = _measure(scores, nulls, settings, units_in, seed=int(rng.integers(2**62)))
    n_way = min(settings.n_way, len(gallery))
    for metrics in measured.values():
        metrics["two_way"]["chance"], metrics["n_way"]["chance"] = 0.5, 1 / n_way
        for k in (1, 5):
            metrics[f"concept_top{k}"]["chance"] = min(1.0, k / len(concepts))
    least = smallest_p(strata, units, len(permuted))
    found = _design_warnings(blocked, unit, len(np.unique(units_in[0])), least)
    summary = {
        "arms": measured, "concepts": _concept_scores(trials, concepts, scores),
        "subjects": _subject_scores(trials, scores),
        "n_trials": len(strata), "n_pictures": len(gallery), "n_way": n_way,
        "unit": unit, "exchanged": exchanged,
        "warnings": [*warnings, *found, *_arm_warnings(measured, nulls)],
    }
    return summary, _rows(trials, scores)


def _label(metric: str) -> str:
    """The trial column that a metric's true column is taken from."""
    return "concept" if metric.startswith("concept") else "stimulus"


def _true_columns(trials: Mapping[str, np.ndarray], name: str, known: Sequence[str]) -> np.ndarray:
    """Column number of every trial's stimulus or concept, once the trial table is checked."""
    missing = [column for column in TRIAL_COLUMNS if column not in trials]
    lengths = {len(column) for column in trials.values()}
    if missing or len(lengths) != 1 or lengths == {0}:
        raise NeuroCanvasError(
            f"trials: columns {', '.join(TRIAL_COLUMNS)} of one length above 0 are needed; "
            f"missing {missing or 'none'}, lengths {sorted(lengths)}."
        )
    place_of = {label: column for column, label in enumerate(known)}
    if len(place_of) != len(known):
        raise NeuroCanvasError(
            f"known {name} ids must differ; got {len(known)}, {len(place_of)} of them distinct."
        )
    unknown = sorted({str(label) for label in trials[name]} - {str(label) for label in known})
    if unknown:
        raise NeuroCanvasError(
            f"{name}: the trials' must be among the {len(known)} known; {unknown[0]} is not."
        )
    return np.array([place_of[str(label)] for label in trials[name]])


def _read_scores(
    arm: str,
    tables: Mapping[str, np.ndarray],
    true: Mapping[str, np.ndarray],
    gallery: Sequence[str],
    concepts: Mapping[str, str],
) -> dict[str, np.ndarray]:
    """Every trial's score under every metric, once the shapes are checked."""
    scores = {}
    for metric, table in tables.items():
        label = true[_label(metric)]
        shape = (len(label), len(concepts if _label(metric) == "concept" else gallery))
        if table.shape != shape:
            raise NeuroCanvasError(f"arm {arm}, {metric}: a {shape} table is needed; got {table.shape}.")
        scores[metric] = read_true(table, label)
        if not np.isfinite(scores[metric]).all():
            raise NeuroCanvasError(f"arm {arm}, {metric}: NaN is not allowed; got it at a seen picture.")
    return scores


def _measure(
    scores: Mapping[str, Mapping[str, np.ndarray]],
    nulls: Mapping[str, Mapping[str, np.ndarray]],
    settings: EvaluateSettings,
    units_in: tuple[np.ndarray, np.ndarray | None],
    seed: int,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Value, interval, p, permutation mean and place of every score; eeg against shuffled as well."""
    means = {arm: {metric: float(v.mean()) for metric, v in given.items()} for arm, given in scores.items()}
    units, strata = units_in
    measured: dict[str, dict[str, dict[str, Any]]] = {arm: {} for arm in scores}
    for arm, given in scores.items():
        for metric, values in given.items():
            interval = bootstrap_interval(
                values, units, strata=strata, resamples=settings.resamples, rng=np.random.default_rng(seed)
            )
            low, high = interval or (None, None)
            value, null = means[arm][metric], nulls[arm][metric]
            score = {
                "value": value, "low": low, "high": high,
                "p": permutation_p(value, null), "chance": float(null.mean()), "place": None,
            }
            if "shuffled" in means and "oracle" in means:
                score["place"] = place(value, means["shuffled"][metric], means["oracle"][metric])
            if arm == "eeg" and "shuffled" in means:
                score["p_vs_shuffled"] = paired_permutation_p(
                    values, scores["shuffled"][metric], units,
                    rng=np.random.default_rng(seed), count=settings.permutations,
                )
            measured[arm][metric] = score
    return measured


def _concept_scores(
    trials: Mapping[str, np.ndarray],
    concepts: Mapping[str, str],
    scores: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, dict[str, Any]]:
    """Two-way identification and concept top-1 of each concept that was seen."""
    table: dict[str, dict[str, Any]] = {}
    for concept, name in concepts.items():
        of_concept = np.asarray(trials["concept"]) == concept
        if of_concept.any():
            means = {
                arm: {key: float(given[key][of_concept].mean()) for key in ("two_way", "concept_top1")}
                for arm, given in scores.items()
            }
            table[concept] = {"name": name, "n": int(of_concept.sum()), **means}
    return table


def _subject_scores(
    trials: Mapping[str, np.ndarray], scores: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Every arm's every score, subject by subject."""
    subjects = np.asarray(trials["subject"])
    return {
        str(subject): {
            arm: {metric: float(values[subjects == subject].mean()) for metric, values in given.items()}
            for arm, given in scores.items()
        }
        for subject in np.unique(subjects)
    }


def _design_warnings(blocked: bool, unit: str, n_units: int, p: float) -> list[str]:
    """What the design does not let anyone conclude; `p` is the smallest that it can give."""
    found = []
    if blocked:
        found.append(
            "Block design: each concept was shown in one stretch of time, so slow drift alone tells concepts "
            "apart. These scores, whatever their p-value, cannot be told from decoding the recording block."
        )
    if n_units < FEW_UNITS:
        found.append(f"Only {n_units} {unit}: intervals are rough.")
    if p > LARGE_SMALLEST_P:
        found.append(f"So few units can be exchanged that p cannot go below {p:.2g}.")
    return found


def _arm_warnings(
    measured: Mapping[str, Mapping[str, Mapping[str, Any]]], nulls: Mapping[str, Mapping[str, np.ndarray]]
) -> list[str]:
    """Control arms that do not do what they are there for."""
    found = []
    oracle = measured["oracle"]["two_way"]["value"] if "oracle" in measured else 1.0
    if oracle < LOW_ORACLE:
        found.append(
            f"The oracle arm reaches only {oracle:.2f} in two-way identification: the generator cannot draw "
            "what it is told, or the judge cannot see it. A low eeg score says little here."
        )
    for arm in ("shuffled", "mean"):
        if arm in measured:
            value = measured[arm]["two_way"]["value"]
            p = permutation_p(value, nulls[arm]["two_way"], two_sided=True)
            if p <= 0.01:
                found.append(
                    f"The {arm} arm differs from chance in two-way identification ({value:.2f}, p {p:.2g}), "
                    "though it knows nothing of the trial: something else gives the pictures away."
                )
    return found


def _rows(
    trials: Mapping[str, np.ndarray], scores: Mapping[str, Mapping[str, np.ndarray]]
) -> list[dict[str, Any]]:
    """One row per arm and trial, as trials.csv has them."""
    return [
        {
            "subject": int(trials["subject"][row]), "trial": int(trials["trial"][row]),
            "stimulus": str(trials["stimulus"][row]), "concept": str(trials["concept"][row]), "arm": arm,
            **{metric: float(given[metric][row]) for metric in METRICS},
        }
        for arm, given in scores.items()
        for row in range(len(trials["subject"]))
    ]
