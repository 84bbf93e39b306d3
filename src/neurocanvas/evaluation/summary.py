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
from neurocanvas.evaluation.metrics import METRICS as KNOWN
from neurocanvas.evaluation.statistics import (
    TOLERANCE,
    Cells,
    bootstrap_interval,
    holm,
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


def _findings(
    blocked: bool,
    unit: str,
    n_units: int,
    least: float,
    measured: Mapping[str, Mapping[str, Mapping[str, Any]]],
    nulls: Mapping[str, Mapping[str, np.ndarray]],
) -> list[Finding]:
    """Blocks, few units, a p that cannot be small, an oracle too low to be a ceiling, null arms that are no floor."""
    found = [finding("blocked-design")] if blocked else []
    if n_units < FEW_UNITS:
        found.append(finding("few-units", n=n_units, unit=unit))
    if least > LARGE_SMALLEST_P:
        found.append(finding("coarse-p", least=least))
    if "oracle" in measured and measured["oracle"]["two_way"]["value"] < LOW_ORACLE:
        found.append(finding("low-oracle", value=measured["oracle"]["two_way"]["value"]))
    for arm in {"shuffled", "mean"} & measured.keys():
        value = measured[arm]["two_way"]["value"]
        p = permutation_p(value, nulls[arm]["two_way"], two_sided=True)
        if p <= 0.01:
            found.append(finding("floor-differs", arm=arm, value=value, p=p))
    return found


METRIC = "two_way"


def forest(
    tables: Mapping[str, Mapping[str, np.ndarray]],
    true: np.ndarray,
    subject: np.ndarray,
    units: np.ndarray,
    permuted: np.ndarray,
    settings: EvaluateSettings,
) -> list[dict[str, Any]]:
    """Two-way score of every arm and subject, from tables (n_trials, n_pictures); Holm over an arm's subjects."""
    rows, subject = [], np.asarray(subject).astype(str)
    for arm, given in tables.items():
        table = given[METRIC]
        values = table[np.arange(len(true)), true]
        of_arm: list[dict[str, Any]] = []
        for one in unique_names(subject):
            mine = np.flatnonzero(subject == one)
            place = np.full(len(subject), -1)
            place[mine] = np.arange(len(mine))
            interval = bootstrap_interval(
                values[mine], units[mine], resamples=settings.resamples, rng=np.random.default_rng(settings.seed)
            )
            value = float(values[mine].mean())
            null = null_means(table[mine], true[mine], place[permuted[:, mine]])
            of_arm.append({
                "subject": one, "arm": arm, "metric": METRIC, "n": len(mine), "value": value,
                "low": interval and interval[0], "high": interval and interval[1], "p": permutation_p(value, null),
            })  # fmt: skip
        corrected = holm([row["p"] for row in of_arm])
        rows += [{**row, "p_holm": p} for row, p in zip(of_arm, corrected, strict=True)]
    return rows


# Names of the scores that every summary.json and trials.csv has; more is better in each.
METRICS = ("two_way", "n_way", "concept_top1", "concept_top5", "pixcorr", "ssim")

# Metrics whose tables have the pictures of the trial's cell as columns (`statistics.Cells`).
PIXELS = ("pixcorr", "ssim")

# From this many subjects on, intervals resample subjects; below it, trials or blocks within each subject.
MANY_SUBJECTS = 5


def score_tables(arm: Mapping[str, np.ndarray], n_way: int) -> dict[str, np.ndarray]:
    """Score of every trial under every metric, for every picture or concept that could have been true."""
    sim, concept = np.asarray(arm["similarity"]), np.asarray(arm.get("concept", np.empty((0, 0))))
    n_concepts = concept.shape[1]
    return {
        "two_way": two_way_table(sim),
        "n_way": n_way_top_k_table(sim, min(n_way, sim.shape[-1])),
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


def exchangeable(trials: Mapping[str, np.ndarray], blocked: bool) -> tuple[str, np.ndarray, np.ndarray]:
    """What is exchanged (trials or blocks), the strata within which it is, and the unit of every trial."""
    names = ("subject",) if blocked else ("subject", "fold")
    strata = np.unique(np.stack([ranks(trials[name]) for name in names]), axis=1, return_inverse=True)[1]
    if not blocked:
        return "trials", strata, np.arange(len(strata))
    units = np.unique(np.stack([ranks(trials["subject"]), trials["block"]]), axis=1, return_inverse=True)[1]
    return "blocks", strata, units


def sign(metric: str) -> int:
    """Factor that turns a metric so that more is better."""
    known = KNOWN.get(metric.partition("@")[0])
    return -1 if known and known.better == "lower" else 1


def summarise(
    arms: Mapping[str, Mapping[str, np.ndarray]],
    trials: Mapping[str, np.ndarray],
    gallery: Sequence[str],
    concepts: Mapping[str, str],
    settings: EvaluateSettings,
    *,
    blocked: bool,
    cells: Cells,
    rng: np.random.Generator,
    findings: Sequence[Finding] = (),
    values: Mapping[str, Mapping[str, np.ndarray]] = MappingProxyType({}),
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Score every arm: the summary, and one row per arm and trial; `values` are scores of true pairs alone."""
    true, widths = {"pixels": cells.columns}, {"pixels": cells.partners.shape[1]}
    for name, known in (("stimulus", list(gallery)), ("concept", list(concepts))):
        column_of, labels = {label: column for column, label in enumerate(known)}, list(map(str, trials[name]))
        unknown = sorted(set(labels) - column_of.keys()) if known else []
        if unknown or len(column_of) != len(known):
            raise NeuroCanvasError(
                f"{name}: trials may name known ones only, and these must be distinct; got {unknown[:1]}, and "
                f"{len(known)} known, {len(column_of)} of them distinct."
            )
        true[name], widths[name] = np.array([column_of[label] for label in labels if known], np.int64), len(known)
    exchanged, strata, units = exchangeable(trials, blocked)
    permuted = permutations(strata, units, settings.permutations, rng=rng)
    seed, within_cells = int(rng.integers(2**62)), permutations(cells.cells, units, settings.permutations, rng=rng)
    n_way, subject = min(settings.n_way, len(gallery)), ranks(trials["subject"])
    unit, resampled = exchanged, (units, subject)  # what intervals resample, and within what
    if settings.resample == "stimuli":
        pairs = np.stack([subject, true["stimulus"]])
        unit, resampled = "stimuli", (np.unique(pairs, axis=1, return_inverse=True)[1], subject)
    elif len(np.unique(subject)) >= MANY_SUBJECTS:
        unit, resampled = "subjects", (subject, np.zeros_like(subject))
    tables = {arm: score_tables(given, n_way) for arm, given in arms.items()}
    scores, nulls, chance = _read(tables, true, widths, permuted, within_cells, cells)
    exact = {"n_way": 1 / n_way, **{f"concept_top{k}": min(1.0, k / max(1, len(concepts))) for k in (1, 5)}}
    scores = {arm: {**given, **values.get(arm, {})} for arm, given in scores.items()}
    measured = _measure(scores, nulls, chance, exact, settings, resampled, seed)
    of_one = resampled[0] if unit == "stimuli" else units  # resampled within a single subject
    found = _findings(
        blocked, unit, len(np.unique(resampled[0])), smallest_p(strata, units, len(permuted)), measured, nulls
    )
    names, seen_concepts = np.asarray(trials["subject"]).astype(str), np.asarray(trials["concept"])
    summary = {
        "arms": measured,
        "concepts": {
            concept: {
                "name": name, "n": int((seen_concepts == concept).sum()),
                **{arm: {key: float(given[key][seen_concepts == concept].mean()) for key in ("two_way", "concept_top1")}
                   for arm, given in scores.items()},
            }
            for concept, name in concepts.items() if concept in seen_concepts
        },
        "subjects": {
            one: {
                arm: {key: sign(key) * float(values_of[names == one].mean()) for key, values_of in given.items()}
                for arm, given in scores.items()
            }
            for one in unique_names(names)
        },
        "forest": forest(tables, true["stimulus"], trials["subject"], of_one, permuted, settings),
        "n_trials": len(strata), "n_pictures": len(gallery), "n_way": n_way, "unit": unit, "exchanged": exchanged,
        "n_seeds": 1, "findings": listed([*findings, *found]),
    }  # fmt: skip
    known_of_trials = [
        {"subject": str(subject), "trial": int(trial), "stimulus": str(stimulus), "concept": str(concept)}
        for subject, trial, stimulus, concept in zip(
            *(trials[name] for name in ("subject", "trial", "stimulus", "concept")), strict=True
        )
    ]
    rows = [
        {**about, "arm": arm, **{metric: sign(metric) * float(of_arm[row]) for metric, of_arm in given.items()}}
        for arm, given in scores.items() for row, about in enumerate(known_of_trials)
    ]  # fmt: skip
    return summary, rows


def _read(
    tables: Mapping[str, Mapping[str, np.ndarray]],
    true: Mapping[str, np.ndarray],
    widths: Mapping[str, int],
    permuted: np.ndarray,
    within_cells: np.ndarray,
    cells: Cells,
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, np.ndarray]], dict[tuple[str, str], float | None]]:
    """Scores of trials, their mean under every permutation, and chance, by arm and metric."""
    other = (cells.partners >= 0) & (true["stimulus"][cells.partners] != true["stimulus"][:, None])
    scores: dict[str, dict[str, np.ndarray]] = {arm: {} for arm in tables}
    nulls: dict[str, dict[str, np.ndarray]] = {arm: {} for arm in tables}
    chance: dict[tuple[str, str], float | None] = {}
    for arm, metric, table in ((arm, *one) for arm, given in tables.items() for one in given.items()):
        label = "pixels" if metric in PIXELS else "concept" if metric.startswith("concept") else "stimulus"
        if table.shape != (shape := (len(other), widths[label])):
            raise NeuroCanvasError(f"arm {arm}, {metric}: a {shape} table is needed; got {table.shape}.")
        scores[arm][metric] = table[np.arange(len(table)), true[label]]
        if not np.isfinite(scores[arm][metric]).all():
            raise NeuroCanvasError(f"arm {arm}, {metric}: NaN is not allowed; got it at a seen picture.")
        nulls[arm][metric] = null_means(table, true[label], within_cells if label == "pixels" else permuted)
        chance[arm, metric] = float(nulls[arm][metric].mean())
        if label == "pixels":  # mean over trials, as the score is, of each trial's mean with other pictures
            rows = other.any(axis=1)
            of_trials = np.where(other, table, 0).sum(axis=1)[rows] / other.sum(axis=1)[rows]
            chance[arm, metric] = float(of_trials.mean()) if rows.any() else None
    return scores, nulls, chance


def _measure(
    scores: Mapping[str, Mapping[str, np.ndarray]],
    nulls: Mapping[str, Mapping[str, np.ndarray]],
    chance: Mapping[tuple[str, str], float | None],
    exact: Mapping[str, float],
    settings: EvaluateSettings,
    resampled: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Value, interval, p, chance and place of every score; eeg against shuffled as well. Distances keep their sign."""
    means = {arm: {metric: float(v.mean()) for metric, v in given.items()} for arm, given in scores.items()}
    measured: dict[str, dict[str, dict[str, Any]]] = {arm: {} for arm in scores}
    for arm, metric, values in ((arm, *one) for arm, given in scores.items() for one in given.items()):
        low, high = bootstrap_interval(
            values, resampled[0], strata=resampled[1], resamples=settings.resamples, rng=np.random.default_rng(seed)
        ) or (None, None)
        value, null = means[arm][metric], nulls[arm].get(metric)
        known = KNOWN[metric].chance if metric in KNOWN else None
        score = {
            "value": value, "low": low, "high": high, "p": None if null is None else permutation_p(value, null),
            "chance": exact.get(metric, known if isinstance(known, float) else chance.get((arm, metric))),
            "place": None,
        }  # fmt: skip
        if "shuffled" in means and "oracle" in means:
            floor, ceiling = means["shuffled"][metric], means["oracle"][metric]
            score["place"] = (value - floor) / (ceiling - floor) if abs(ceiling - floor) >= TOLERANCE else None
        if arm in ("eeg", "given") and "shuffled" in means:
            score["p_vs_shuffled"] = paired_permutation_p(
                values, scores["shuffled"][metric], resampled[0], rng=np.random.default_rng(seed),
                count=settings.permutations,
            )  # fmt: skip
        if sign(metric) < 0:
            turned = {"value": value, "low": high, "high": low, "chance": score["chance"]}
            score |= {name: None if one is None else -one for name, one in turned.items()}
        measured[arm][metric] = score
    return measured
