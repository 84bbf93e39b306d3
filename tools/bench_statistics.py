"""Permutation tests: ours against a loop over permutations."""

from __future__ import annotations

import numpy as np
from bench import Row, compare, in_turn

from neurocanvas.evaluation.identification import n_way_top_k_table, read_true
from neurocanvas.evaluation.statistics import null_means, permutation_p, permutations

PICTURES, COUNT = 200, 10_000


def benchmark() -> list[Row]:
    """Seconds for 10,000 permutations of a 200-way retrieval, table and p-value included."""
    rng = np.random.default_rng(0)
    sim, true = rng.standard_normal((PICTURES, PICTURES)), np.arange(PICTURES)

    def ours() -> float:
        table = n_way_top_k_table(sim, PICTURES)
        permuted = permutations(np.zeros(PICTURES), true, COUNT, rng=np.random.default_rng(1))
        return permutation_p(float(read_true(table, true).mean()), null_means(table, true, permuted))

    def loop() -> float:
        deal, best = np.random.default_rng(1), sim.argmax(axis=1)
        null = [np.mean(best == deal.permutation(PICTURES)) for _ in range(COUNT)]
        return float((1 + np.sum(np.array(null) >= np.mean(best == true))) / (1 + COUNT))

    seconds = in_turn(loop, ours, rounds=5)
    what = f"seconds for {COUNT:,} permutations of a {PICTURES}-way retrieval; baseline: a loop over permutations"
    return [compare("permutations_retrieval", *seconds, "s", what)]


BENCHMARKS = {"statistics": benchmark}
