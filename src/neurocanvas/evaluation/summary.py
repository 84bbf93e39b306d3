"""All scores of a run, with chance, interval, p-value and place, from tables that are already computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from neurocanvas.config import EvaluateSettings
from neurocanvas.data.trials import ranks, unique_names
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.identification import n_way_top_k_table, two_way_table
from neurocanvas.evaluation.metrics import METRICS, SHARE
from neurocanvas.evaluation.statistics import (
    CROSS_VALIDATED,
    TOLERANCE,
    expected_score,
    holm,
    mean_interval,
    null_means,
    paired_permutation_p,
    permutation_p,
    permutations,
    smallest_p,
)
from neurocanvas.findings import Finding, finding, listed


def semantic_order(embeddings: np.ndarray) -> np.ndarray:
    """Place of every concept, (n_concepts,), so that concepts of similar meaning are neighbours [BarJoseph2001]."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(embeddings) < 3:
        return np.arange(len(embeddings))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    leaves = leaves_list(linkage(unit, "average", metric="cosine", optimal_ordering=True))
    places = np.empty(len(leaves), dtype=np.int64)
    places[leaves] = np.arange(len(leaves))
    return places


# Below this many units, intervals are rough and a finding says so.
FEW_UNITS = 20

# Where no p-value can be below this, a finding says so.
LARGE_SMALLEST_P = 0.01

# An oracle arm with a lower two-way score cannot serve as ceiling.
LOW_ORACLE = 0.75


def forest(
    tables: Mapping[str, Mapping[str, np.ndarray]],
    true: np.ndarray,
    subject: np.ndarray,
    units: np.ndarray,
    permuted: np.ndarray,
    settings: EvaluateSettings,
    widening: float = 1.0,
) -> list[dict[str, Any]]:
    """Two-way score of every arm and subject, from tables (n_trials, n_pictures); Holm over an arm's subjects."""
    rows, subject = [], np.asarray(subject).astype(str)
    for arm, table in ((arm, given["two_way"]) for arm, given in tables.items() if "two_way" in given):
        values = table[np.arange(len(true)), true]
        of_arm: list[dict[str, Any]] = []
        for one in unique_names(subject):
            mine = np.flatnonzero(subject == one)
            place = np.full(len(subject), -1)
            place[mine] = np.arange(len(mine))
            interval = mean_interval(
                values[mine], units[mine], resamples=settings.resamples, rng=np.random.default_rng(settings.seed),
                share=True, widening=widening,
            )
            value = float(values[mine].mean())
            null = null_means(table[mine], true[mine], place[permuted[:, mine]])
            of_arm.append({
                "subject": one, "arm": arm, "metric": "two_way", "n": len(mine), "value": value,
                "low": interval and interval[0], "high": interval and interval[1],
                "p": permutation_p(value, null, widening=widening),
            })  # fmt: skip
        corrected = holm([row["p"] for row in of_arm])
        rows += [{**row, "p_holm": p} for row, p in zip(of_arm, corrected, strict=True)]
    return rows


# Metrics whose tables have the images of the trial's cell as columns (`statistics.draw_cells`).
PIXELS = ("pixcorr", "ssim")

# From this many subjects on, intervals resample subjects; below it, trials or blocks within each subject.
MANY_SUBJECTS = 5


def score_tables(arm: Mapping[str, np.ndarray], n_way: int) -> dict[str, np.ndarray]:
    """Score of every trial under every metric, for every image or concept that could have been true."""
    concept = np.asarray(arm.get("concept", np.empty((0, 0))))
    n_concepts, identified = concept.shape[1], dict[str, np.ndarray]()
    if "similarity" in arm:  # else the judge was left out
        sim = np.asarray(arm["similarity"])
        identified = {"two_way": two_way_table(sim), "n_way": n_way_top_k_table(sim, min(n_way, sim.shape[-1]))}
    return {
        **identified,
        **{
            f"concept_top{k}": n_way_top_k_table(concept, n_concepts, min(k, n_concepts))
            for k in ((1, 5) if n_concepts else ())
        },
        **{metric: np.asarray(arm[metric], dtype=np.float64) for metric in PIXELS},
        **{
            name: np.asarray(table, dtype=np.float64)
            for name, table in arm.items()
            if name not in ("similarity", "concept", *PIXELS)
        },
    }


def exchangeable(trials: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The stratum and the unit of every trial; labels are exchanged between the units of a stratum."""
    strata, units = (
        np.unique(np.stack([ranks(trials["subject"]), trials[name]]), axis=1, return_inverse=True)[1].reshape(-1)
        for name in ("fold", "unit")
    )
    return strata, np.unique(np.stack([strata, units]), axis=1, return_inverse=True)[1].reshape(-1)


def _true_columns(name: str, of_trials: np.ndarray, known: Sequence[str]) -> np.ndarray:
    """Number of each trial's image or concept among the known ones, (n_trials,); empty where none is known."""
    column_of, labels = {label: column for column, label in enumerate(known)}, list(map(str, of_trials))
    unknown = sorted(set(labels) - column_of.keys()) if known else []
    if unknown or len(column_of) != len(known):
        raise NeuroCanvasError(
            f"{name}: trials may name known ones only, and these must be distinct; got {unknown[:1]}, and "
            f"{len(known)} known, {len(column_of)} of them distinct."
        )
    return np.array([column_of[label] for label in labels if known], np.int64)


def summarise(
    arms: Mapping[str, Mapping[str, np.ndarray]],
    trials: Mapping[str, np.ndarray],
    gallery: Sequence[str],
    concepts: Mapping[str, str],
    settings: EvaluateSettings,
    *,
    exchanged: str,
    cross_validated: bool = False,
    cells: tuple[np.ndarray, np.ndarray, np.ndarray],
    rng: np.random.Generator,
    findings: Sequence[Finding] = (),
    values: Mapping[str, Mapping[str, np.ndarray]] = MappingProxyType({}),
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Score every arm: the summary, and one row per arm and trial; `values` are scores of true pairs alone."""
    true = {
        name: _true_columns(name, trials[name], known)
        for name, known in (("stimulus", list(gallery)), ("concept", list(concepts)))
    }
    strata, units = exchangeable(trials)
    widening = {kind: factor if cross_validated else 1.0 for kind, factor in CROSS_VALIDATED.items()}
    permuted = permutations(strata, units, settings.permutations, rng=rng)
    seed, within_cells = int(rng.integers(2**62)), permutations(cells[0], units, settings.permutations, rng=rng)
    n_way, subject = min(settings.n_way, len(gallery)), ranks(trials["subject"])
    unit, resampled = exchanged, (units, subject)  # what intervals resample, and within what
    if settings.resample == "stimuli":
        pairs = np.stack([subject, true["stimulus"]])
        unit, resampled = "stimuli", (np.unique(pairs, axis=1, return_inverse=True)[1], subject)
    elif len(np.unique(subject)) >= MANY_SUBJECTS:
        unit, resampled = "subjects", (subject, np.zeros_like(subject))
    kinds = {
        "stimulus": (true["stimulus"], len(gallery), permuted), "concept": (true["concept"], len(concepts), permuted),
        "pixels": (cells[2], cells[1].shape[1], within_cells),
    }  # fmt: skip
    tables = {arm: score_tables(given, n_way) for arm, given in arms.items()}
    scores, measured, nulls = _measure(
        tables, values, kinds, cells[1], settings, resampled, strata, subject, seed, widening,
        others_train=exchanged == "concepts",
    )
    n_units, least = len(np.unique(resampled[0])), smallest_p(strata, units, true["stimulus"], len(permuted))
    found = [*findings]
    found += [finding("few-units", n=n_units, unit=unit)] * (n_units < FEW_UNITS)
    found += [finding("coarse-p", least=least)] * (least > LARGE_SMALLEST_P)
    for arm, value in ((arm, measured[arm]["two_way"]["value"]) for arm in nulls):
        if arm == "oracle" and value < LOW_ORACLE:
            found.append(finding("low-oracle", value=value))
        p = permutation_p(value, nulls[arm], two_sided=True, widening=widening["score"])
        if arm in ("shuffled", "mean") and p <= 0.01:
            found.append(finding("floor-differs", arm=arm, value=value, p=p))
    of_one = resampled[0] if unit == "stimuli" else units  # resampled within a single subject
    names, seen_concepts = np.asarray(trials["subject"]).astype(str), np.asarray(trials["concept"])
    summary = {
        "arms": measured,
        "concepts": {
            concept: {
                "name": name, "n": int((seen_concepts == concept).sum()),
                **{arm: {key: float(given[key][seen_concepts == concept].mean())
                         for key in ("two_way", "concept_top1") if key in given} for arm, given in scores.items()},
            }
            for concept, name in concepts.items() if concept in seen_concepts
        },
        "subjects": {
            one: {arm: {key: float(of_trials[names == one].mean()) for key, of_trials in given.items()}
                  for arm, given in scores.items()}
            for one in unique_names(names)
        },
        "forest": forest(tables, true["stimulus"], trials["subject"], of_one, permuted, settings, widening["score"]),
        "n_trials": len(strata), "n_pictures": len(gallery), "n_way": n_way, "unit": unit, "exchanged": exchanged,
        "n_seeds": 1, "findings": listed(found),
    }  # fmt: skip
    keys = ("subject", "trial", "stimulus", "concept")
    columns = names.tolist(), map(int, trials["trial"]), map(str, trials["stimulus"]), map(str, trials["concept"])
    about = [dict(zip(keys, one, strict=True)) for one in zip(*columns, strict=True)]
    rows = [
        {**said, "arm": arm, **{metric: float(of_arm[row]) for metric, of_arm in given.items()}}
        for arm, given in scores.items() for row, said in enumerate(about)
    ]  # fmt: skip
    return summary, rows


def place_interval(
    values: np.ndarray, floor: np.ndarray, ceiling: np.ndarray, units: np.ndarray, strata: np.ndarray, widening: float
) -> tuple[float | None, float | None]:
    """Jackknife interval of (value − floor) / (ceiling − floor) of mean scores, (n_trials,) each, over units."""
    from scipy.stats import t

    _, unit = np.unique(np.stack([strata, units]), axis=1, return_inverse=True)
    sums = np.stack([np.bincount(unit.reshape(-1), weights=part) for part in (values, floor, ceiling)])
    without = sums.sum(axis=1, keepdims=True) - sums
    gaps, n_units = without[2] - without[1], sums.shape[1]
    df = n_units - len(np.unique(strata))
    if df < 1 or (np.abs(gaps) < TOLERANCE * len(values)).any():
        return None, None
    place = float((values.sum() - floor.sum()) / (ceiling.sum() - floor.sum()))
    places = (without[0] - without[1]) / gaps
    error = float(np.sqrt((n_units - 1) / n_units * np.sum((places - places.mean()) ** 2)))
    reach = widening * float(t.isf(0.025, df)) * error
    return place - reach, place + reach


def _measure(
    tables: Mapping[str, Mapping[str, np.ndarray]],
    values: Mapping[str, Mapping[str, np.ndarray]],
    kinds: Mapping[str, tuple[np.ndarray, int, np.ndarray]],
    partners: np.ndarray,
    settings: EvaluateSettings,
    resampled: tuple[np.ndarray, np.ndarray],
    strata: np.ndarray,
    subject: np.ndarray,
    seed: int,
    widening: Mapping[str, float],
    *,
    others_train: bool,
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, dict[str, Any]]], dict[str, np.ndarray]]:
    """Scores of trials; value, interval, p, chance and place of each score; two-way means under permutations."""
    # `kinds` says what tables of images, concepts and pixels have: the true column, their width, and permutations.
    shown, n_subjects = kinds["stimulus"][0], int(subject.max()) + 1
    other = (partners >= 0) & (shown[partners] != shown[:, None])
    scores: dict[str, dict[str, np.ndarray]] = {arm: {} for arm in tables}
    nulls, chance = dict[tuple[str, str], np.ndarray](), dict[tuple[str, str], float | None]()
    for arm, metric, table in ((arm, *one) for arm, given in tables.items() for one in given.items()):
        kind = "pixels" if metric in PIXELS else "concept" if metric.startswith("concept") else "stimulus"
        true, width, permuted = kinds[kind]
        if table.shape != (shape := (len(other), width)):
            raise NeuroCanvasError(f"arm {arm}, {metric}: a {shape} table is needed; got {table.shape}.")
        scores[arm][metric] = table[np.arange(len(table)), true]
        if not np.isfinite(scores[arm][metric]).all():
            raise NeuroCanvasError(f"arm {arm}, {metric}: NaN is not allowed; got it at a seen image.")
        nulls[arm, metric] = null_means(table, true, permuted)
        if kind != "pixels":
            chance[arm, metric] = expected_score(table, true, strata)
        else:  # mean over trials, as the score is, of each trial's mean with other images
            rows = other.any(axis=1)
            of_trials = np.where(other, table, 0).sum(axis=1)[rows] / other.sum(axis=1)[rows]
            chance[arm, metric] = float(of_trials.mean()) if rows.any() else None
    scores = {arm: {**given, **values.get(arm, {})} for arm, given in scores.items()}
    measured: dict[str, dict[str, dict[str, Any]]] = {arm: {} for arm in scores}
    for arm, metric, of_arm in ((arm, *one) for arm, given in scores.items() for one in given.items()):
        known, null = METRICS.get(metric.partition("@")[0]), nulls.get((arm, metric))
        turn = -1 if known and known.better == "lower" else 1
        wider = widening["correct" if metric.startswith("concept") else "score"]
        low, high = mean_interval(
            turn * of_arm, resampled[0], strata=resampled[1], resamples=settings.resamples,
            rng=np.random.default_rng(seed), share=known is not None and known.unit == SHARE, widening=wider,
        ) or (None, None)  # fmt: skip
        if low is not None and high is not None and turn < 0:
            low, high = -high, -low
        fixed = known.chance if known and "@" not in metric and isinstance(known.chance, float) else None
        value, at_chance = float(of_arm.mean()), chance.get((arm, metric), fixed)
        score = measured[arm][metric] = {
            "value": value,
            "low": low,
            "high": high,
            "p": None if null is None else permutation_p(turn * value, turn * null, widening=wider),
            "chance": at_chance,
            "place": None,
        }
        if n_subjects > 1 and null is not None and at_chance is not None:
            means = np.bincount(subject, turn * (of_arm - at_chance)) / np.bincount(subject)
            score["p_subjects"] = paired_permutation_p(
                means, np.zeros(n_subjects), np.arange(n_subjects), rng=np.random.default_rng(seed),
                count=settings.permutations, widening=wider if others_train else 1.0,
            )  # fmt: skip
        if {"shuffled", "oracle"} <= scores.keys():
            floor, ceiling = (float(scores[end][metric].mean()) for end in ("shuffled", "oracle"))
            if abs(ceiling - floor) >= TOLERANCE:
                score["place"] = (value - floor) / (ceiling - floor)
                score["place_low"], score["place_high"] = place_interval(
                    of_arm, scores["shuffled"][metric], scores["oracle"][metric], *resampled, wider
                )
        if arm in ("eeg", "given") and "shuffled" in scores:
            score["p_vs_shuffled"] = paired_permutation_p(
                turn * of_arm, turn * scores["shuffled"][metric], resampled[0], rng=np.random.default_rng(seed),
                count=settings.permutations, widening=wider,
            )  # fmt: skip
    return scores, measured, {arm: null for (arm, metric), null in nulls.items() if metric == "two_way"}
