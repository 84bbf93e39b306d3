"""All scores of a run, with chance, interval, p-value and place, from tables that are already computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from neurocanvas.config import EvaluateSettings
from neurocanvas.data.trials import ranks, unique_names
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.identification import (
    concept_top_k_table,
    n_way_top_k_table,
    read_true,
    two_way_table,
)
from neurocanvas.evaluation.metrics import METRICS as KNOWN
from neurocanvas.evaluation.statistics import (
    Cells,
    bootstrap_interval,
    holm,
    null_means,
    paired_permutation_p,
    permutation_p,
    permutations,
    place,
    smallest_p,
)
from neurocanvas.findings import Finding, finding, listed


def confusion_counts(scores: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Confusion counts, (n_concepts, n_concepts), row seen, column named, from scores (n_trials, n_concepts)."""
    if scores.ndim != 2 or true.shape != scores.shape[:1]:
        raise NeuroCanvasError(
            f"confusions: scores (n_trials, n_concepts) and one column per trial are needed; got {scores.shape}, "
            f"{true.shape}."
        )
    counts = np.zeros((scores.shape[1], scores.shape[1]), dtype=np.int64)
    np.add.at(counts, (true, scores.argmax(axis=1)), 1)
    return counts


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


def design_findings(blocked: bool, unit: str, n_units: int, smallest: float) -> list[Finding]:
    """Say that concepts came in blocks, that there are few units, and that p cannot be small."""
    found = [finding("blocked-design")] if blocked else []
    if n_units < FEW_UNITS:
        found.append(finding("few-units", n=n_units, unit=unit))
    if smallest > LARGE_SMALLEST_P:
        found.append(finding("coarse-p", least=smallest))
    return found


def arm_findings(
    measured: Mapping[str, Mapping[str, Mapping[str, Any]]], nulls: Mapping[str, Mapping[str, np.ndarray]]
) -> list[Finding]:
    """Say that the oracle arm is too low to be a ceiling, and that null arms differ from chance."""
    found = []
    oracle = measured["oracle"]["two_way"]["value"] if "oracle" in measured else 1.0
    if oracle < LOW_ORACLE:
        found.append(finding("low-oracle", value=oracle))
    for arm in ("shuffled", "mean"):
        if arm in measured:
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

# What each arm brings: similarity to every picture, the judge's score of every concept, and PixCorr and SSIM with the
# pictures of the trial's cell (`statistics.Cells`).
TABLES = ("similarity", "concept", "pixcorr", "ssim")
PIXELS = ("pixcorr", "ssim")

# What is known of every trial.
TRIAL_COLUMNS = ("subject", "trial", "stimulus", "concept", "block", "fold")

# From this many subjects on, intervals resample subjects; below it, trials or blocks within each subject.
MANY_SUBJECTS = 5


def score_tables(arm: Mapping[str, np.ndarray], n_way: int) -> dict[str, np.ndarray]:
    """Score of every trial under every metric, for every picture or concept that could have been true."""
    missing = [name for name in TABLES if name not in arm and name != "concept"]
    if missing:
        raise NeuroCanvasError(f"arm: the tables {', '.join(TABLES)} are needed; {', '.join(missing)} is missing.")
    sim = np.asarray(arm["similarity"])
    return {
        "two_way": two_way_table(sim),
        "n_way": n_way_top_k_table(sim, min(n_way, sim.shape[-1])),
        **({f"concept_top{k}": concept_top_k_table(arm["concept"], k) for k in (1, 5)} if "concept" in arm else {}),
        **{metric: np.asarray(arm[metric], dtype=np.float64) for metric in PIXELS},
        **{name: np.asarray(table, dtype=np.float64) for name, table in arm.items() if name not in TABLES},
    }


def exchangeable(trials: Mapping[str, np.ndarray], blocked: bool) -> tuple[str, np.ndarray, np.ndarray]:
    """What may be exchanged, and within what."""
    names = ("subject",) if blocked else ("subject", "fold")
    strata = np.unique(np.stack([ranks(trials[name]) for name in names]), axis=1, return_inverse=True)[1]
    if not blocked:
        return "trials", strata, np.arange(len(strata))
    units = np.unique(np.stack([ranks(trials["subject"]), trials["block"]]), axis=1, return_inverse=True)[1]
    return "blocks", strata, units


def draw_cells(trials: Mapping[str, np.ndarray], blocked: bool, seed: int) -> Cells:
    """Draw the cells within which PixCorr and SSIM are computed; no other random stream has this seed."""
    _, strata, units = exchangeable(trials, blocked)
    return Cells.draw(strata, units, rng=np.random.default_rng([seed, 1]))


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
    """Score every arm."""
    true = {"stimulus": _true_columns(trials, "stimulus", gallery), "pixels": cells.columns}
    if concepts:
        true["concept"] = _true_columns(trials, "concept", list(concepts))
    widths = {"stimulus": len(gallery), "concept": len(concepts), "pixels": cells.partners.shape[1]}
    tables = {arm: score_tables(given, settings.n_way) for arm, given in arms.items()}
    scores = {arm: {**_read_scores(arm, one, true, widths), **values.get(arm, {})} for arm, one in tables.items()}
    exchanged, strata, units = exchangeable(trials, blocked)
    permuted = permutations(strata, units, settings.permutations, rng=rng)
    unit, units_in = _resampled(settings, ranks(trials["subject"]), true["stimulus"], exchanged, units)
    seed, within_cells = int(rng.integers(2**62)), permutations(cells.cells, units, settings.permutations, rng=rng)
    nulls = {arm: _permuted(given, true, permuted, within_cells) for arm, given in tables.items()}
    measured, n_way = _measure(scores, nulls, settings, units_in, seed), min(settings.n_way, len(gallery))
    _set_chance(measured, tables, cells.shows_another(true["stimulus"]), n_way, len(concepts))
    of_one = units_in[0] if unit == "stimuli" else units  # resampled within a single subject
    found = design_findings(blocked, unit, len(np.unique(units_in[0])), smallest_p(strata, units, len(permuted)))
    summary = {
        "arms": measured, "concepts": _concept_scores(trials, concepts, scores),
        "subjects": _subject_scores(trials, scores),
        "forest": forest(tables, true["stimulus"], trials["subject"], of_one, permuted, settings),
        "n_trials": len(strata), "n_pictures": len(gallery), "n_way": n_way, "unit": unit, "exchanged": exchanged,
        "n_seeds": 1, "findings": listed([*findings, *found, *arm_findings(measured, nulls)]),
    }  # fmt: skip
    return _upright(summary), _rows(trials, scores)


def _resampled(
    settings: EvaluateSettings, subject: np.ndarray, stimulus: np.ndarray, exchanged: str, units: np.ndarray
) -> tuple[str, tuple[np.ndarray, np.ndarray | None]]:
    """What intervals resample, and within what."""
    if settings.resample == "stimuli":
        return "stimuli", (np.unique(np.stack([subject, stimulus]), axis=1, return_inverse=True)[1], subject)
    if len(np.unique(subject)) >= MANY_SUBJECTS:
        return "subjects", (subject, None)
    return exchanged, (units, subject)


def sign(metric: str) -> int:
    """Say how a metric is turned so that more is better."""
    known = KNOWN.get(metric.partition("@")[0])
    return -1 if known and known.better == "lower" else 1


def _permuted(
    tables: Mapping[str, np.ndarray], true: Mapping[str, np.ndarray], permuted: np.ndarray, within_cells: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean of every score under every permutation."""
    return {
        metric: null_means(table, true[_label(metric)], within_cells if metric in PIXELS else permuted)
        for metric, table in tables.items()
    }


def _set_chance(
    measured: Mapping[str, Mapping[str, dict[str, Any]]],
    tables: Mapping[str, Mapping[str, np.ndarray]],
    other: np.ndarray,
    n_way: int,
    n_concepts: int,
) -> None:
    """Replace the mean over permutations: by exact chance where known, for pixels by the mean with other pictures."""
    for arm, metrics in measured.items():
        for metric, score in metrics.items():
            if metric in PIXELS:
                rows = other.any(axis=1)  # mean over trials, as the score is, of each trial's mean with other pictures
                per_trial = np.where(other, tables[arm][metric], 0).sum(axis=1)[rows] / other.sum(axis=1)[rows]
                score["chance"] = float(per_trial.mean()) if rows.any() else None
            else:
                exact = _exact_chance(metric, n_way, n_concepts)
                score["chance"] = score["chance"] if exact is None else exact


def _exact_chance(metric: str, n_way: int, n_concepts: int) -> float | None:
    """What no information gives, where that is known without permutations."""
    if metric.startswith("concept_top"):
        return min(1.0, int(metric[-1]) / n_concepts)
    if metric == "n_way":
        return 1 / n_way
    chance = KNOWN[metric].chance if metric in KNOWN else None
    return chance if isinstance(chance, float) else None


def _upright(summary: dict[str, Any]) -> dict[str, Any]:
    """Turn distances, of which the negative was scored, to what they are."""
    for given in summary["arms"].values():
        for metric, score in given.items():
            if sign(metric) < 0:
                low, high = score["low"], score["high"]
                turned = {"value": score["value"], "low": high, "high": low, "chance": score["chance"]}
                score |= {name: None if value is None else -value for name, value in turned.items()}
    for subject in summary["subjects"].values():
        for given in subject.values():
            given |= {metric: sign(metric) * value for metric, value in given.items()}
    return summary


def _label(metric: str) -> str:
    """What the columns of a metric's table stand for."""
    if metric in PIXELS:
        return "pixels"
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
        raise NeuroCanvasError(f"known {name} ids must differ; got {len(known)}, {len(place_of)} of them distinct.")
    unknown = sorted({str(label) for label in trials[name]} - {str(label) for label in known})
    if unknown:
        raise NeuroCanvasError(f"{name}: the trials' must be among the {len(known)} known; {unknown[0]} is not.")
    return np.array([place_of[str(label)] for label in trials[name]])


def _read_scores(
    arm: str,
    tables: Mapping[str, np.ndarray],
    true: Mapping[str, np.ndarray],
    widths: Mapping[str, int],
) -> dict[str, np.ndarray]:
    """Every trial's score under every metric, once the shapes are checked."""
    scores = {}
    for metric, table in tables.items():
        label = true[_label(metric)]
        shape = (len(label), widths[_label(metric)])
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
            value, null = means[arm][metric], nulls[arm].get(metric)
            score = {
                "value": value, "low": low, "high": high, "p": None if null is None else permutation_p(value, null),
                "chance": None if null is None else float(null.mean()), "place": None,
            }  # fmt: skip
            if "shuffled" in means and "oracle" in means:
                score["place"] = place(value, means["shuffled"][metric], means["oracle"][metric])
            if arm in ("eeg", "given") and "shuffled" in means:
                score["p_vs_shuffled"] = paired_permutation_p(
                    values,
                    scores["shuffled"][metric],
                    units,
                    rng=np.random.default_rng(seed),
                    count=settings.permutations,
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
    subjects = np.asarray(trials["subject"]).astype(str)
    return {
        subject: {
            arm: {metric: float(values[subjects == subject].mean()) for metric, values in given.items()}
            for arm, given in scores.items()
        }
        for subject in unique_names(subjects)
    }


def _rows(trials: Mapping[str, np.ndarray], scores: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """One row per arm and trial, as trials.csv has them."""
    return [
        {
            "subject": str(trials["subject"][row]),
            "trial": int(trials["trial"][row]),
            "stimulus": str(trials["stimulus"][row]),
            "concept": str(trials["concept"][row]),
            "arm": arm,
            **{metric: sign(metric) * float(values[row]) for metric, values in given.items()},
        }
        for arm, given in scores.items()
        for row in range(len(trials["subject"]))
    ]
