"""Two audits of the same subjects compared: how much higher scores are where test and training trials are linked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.statistics import SIGNIFICANT, holm, paired_permutation_p
from neurocanvas.findings import finding, listed

# With fewer subjects than this the smallest reachable p is shown.
FEW_SUBJECTS = 6


def _scores(report: Mapping[str, Any]) -> dict[tuple[str, ...], dict[str, float]]:
    """Part of the concepts, model and metric -> subject -> score."""
    scores: dict[tuple[str, ...], dict[str, float]] = {}
    for case in report["cases"]:
        part = "" if case["name"] == report["source"] else case["name"].partition(", ")[2]
        for result in [result for result in case["results"] if result.get("subjects")]:
            key = (part, result["model"], result["metric"])
            if key in scores:
                raise NeuroCanvasError(
                    f"{report['source']}: several protocols have scores of {result['model']}; name a folder with one."
                )
            scores[key] = {row["subject"]: row["value"] for row in result["subjects"]}
    if not scores:
        raise NeuroCanvasError(
            f"{report['source']}: no score of a subject; a table needs the column subject, a run folder scores."
        )
    return scores


def signed_rank(differences: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """One-sided p of Wilcoxon's test for differences above 0, exact up to 50 (13 with ties); rank-biserial r."""
    from scipy.stats import rankdata, wilcoxon

    some = np.round(differences, 12)
    some = some[some != 0]
    if not len(some):
        return 1.0, 0.0
    signed = rankdata(np.abs(some)) * np.sign(some)
    if len(np.unique(np.abs(some))) < len(some):  # tied ranks: the same test by its signs
        p = paired_permutation_p(signed, np.zeros(len(some)), np.arange(len(some)), rng=rng, count=2**13)
    else:
        p = float(wilcoxon(some, alternative="greater").pvalue)
    return p, float(signed.sum() / np.abs(signed).sum())


def compare(clean: Mapping[str, Any], leaky: Mapping[str, Any]) -> dict[str, Any]:
    """Per model and metric the margin, the ratio and the test over subjects; Holm over all of them."""
    rng, scores = np.random.default_rng(0), [_scores(report) for report in (clean, leaky)]
    rows, tests, findings = list[dict[str, Any]](), list[float](), []
    sources = (clean["source"], leaky["source"])
    _check_same("models", sources, *({" ".join(filter(None, key)) for key in side} for side in scores))
    for key, of_clean in scores[0].items():
        of_leaky = scores[1][key]
        _check_same("subjects", sources, of_clean, of_leaky)
        pairs = np.array([[of_clean[name], of_leaky[name]] for name in of_clean])
        (p, r), n = signed_rank(pairs[:, 1] - pairs[:, 0], rng), len(pairs)
        tests.append(p)
        rows.append({
            "part": key[0], "model": key[1], "metric": key[2], "n": n, **_difference(*pairs.mean(axis=0).tolist()),
            "share": float(np.mean(pairs[:, 1] > pairs[:, 0])), "p": p, "r": r,
            "least_p": 2.0**-n if n < FEW_SUBJECTS else None,
            "subjects": [{"subject": name, **_difference(*pair)} for name, pair in zip(of_clean, pairs.tolist(), strict=True)],
        })  # fmt: skip
    for row, p in zip(rows, holm(tests), strict=True):
        row["p_holm"] = p
        numbers = {name: row[name] for name in ("model", "metric", "margin", "share", "n")}
        findings.append(finding("inflated" if p < SIGNIFICANT else "not-inflated", p=p, **numbers))
        if row["least_p"] is not None:
            findings.append(finding("few-pairs", n=row["n"], least=row["least_p"]))
    return {**clean, "leaky": dict(leaky), "paired": rows, "findings": listed(findings)}


def _difference(clean: float, leaky: float) -> dict[str, float | None]:
    return {"clean": clean, "leaky": leaky, "margin": leaky - clean, "ratio": leaky / clean if clean else None}


def _check_same(kind: str, sources: Sequence[str], clean: Collection[str], leaky: Collection[str]) -> None:
    """Raise where one side has names that the other lacks."""
    for source, have, other in zip(sources, (clean, leaky), (leaky, clean), strict=True):
        if missing := [name for name in other if name not in have]:
            raise NeuroCanvasError(
                f"{source}: the {kind} {', '.join(sorted(missing))} are missing, which the other side has; both need "
                f"the same {kind}."
            )
