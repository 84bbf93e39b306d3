"""The stages classify and benchmark: which concept was seen, by every model, protocol, granularity and subject."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from neurocanvas import store
from neurocanvas.datasets.eeg_imagenet import granularity_rows
from neurocanvas.datasets.splits import Split, is_blocked, make_splits
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.benchmark import (
    EXPLANATION,
    Cell,
    as_csv,
    as_latex,
    as_text,
    paper_tables,
    summarise_cells,
)
from neurocanvas.features.entropy import cut_window
from neurocanvas.models.classifiers import TrialSpec, find_classifier
from neurocanvas.stages.mapping import features, pooled_features_paths, read_pooled_features, simulate
from neurocanvas.stages.run import Advance, Run, untracked
from neurocanvas.training.classification import Outcome, train_classifier
from neurocanvas.trials import Trials

COLUMNS = ("order", "concept", "fold", "unit")
"""What stands before the scores in a file of scores; `order` is the trial's place in the subject's recording."""

READ_AT_ONCE = 200
FINE = tuple(f"fine{group}" for group in range(5))
TRANSDUCTIVE = "Domain adaptation saw the test trials without their labels: these scores are transductive."


@dataclass(frozen=True)
class _Job:
    """One subject's trials under one protocol; what the models are given is read once."""

    run: Run
    subject: int

    @cached_property
    def pool(self) -> Trials:
        """The trials that rows count in: the subject's own, or with them those of others that train."""
        return self.run.pool(self.subject)

    @cached_property
    def features(self) -> np.ndarray:
        """Features of the pool."""
        return read_pooled_features(self.run, self.subject)[0]

    @cached_property
    def signal(self) -> np.ndarray:
        """Signal of the pool in the feature window, µV."""
        settings, parts = self.run.settings.features, []
        for start in range(0, len(self.pool), READ_AT_ONCE):
            signal = self.pool.signal(slice(start, start + READ_AT_ONCE))
            parts.append(cut_window(signal, self.pool, settings).astype(np.float32))
        return np.concatenate(parts)

    def splits(self, granularity: str) -> list[Split]:
        """Splits of the trials of a granularity; rows count in the pool."""
        settings, rows = self.run.settings, np.arange(len(self.pool))
        if granularity != settings.data.granularity:
            columns = self.pool.column("concept"), self.pool.column("granularity")
            rows = np.flatnonzero(granularity_rows(*columns, granularity))
        if len(rows) == 0:
            raise NeuroCanvasError(f"granularity: subject {self.subject} has no trials of {granularity}; leave it out.")
        found = make_splits(self.pool.select(rows), settings.split, self.subject)
        return [replace(split, **{part: rows[own] for part, own in split.parts().items()}) for split in found]

    def units(self, rows: np.ndarray) -> np.ndarray:
        """What a permutation exchanges as a whole: the block in a blocked design, else the trial."""
        if not is_blocked(self.pool.select(self.pool.column("subject") == self.subject)):
            return rows
        blocks = np.stack([self.pool.column("session")[rows], self.pool.column("block")[rows]], axis=1)
        return np.unique(blocks, axis=0, return_inverse=True)[1].reshape(-1)

    def inputs(self, splits: Sequence[Split], model: str) -> str:
        """Fingerprint of everything that a cell depends on."""
        settings, cards = self.run.settings, []
        if find_classifier(model).takes == "features":
            cards = [store.read_card(path)["sha256"] for path in pooled_features_paths(self.run, self.subject)]
        return store.fingerprint(
            "classify", model, settings.classify.model_dump(mode="json", exclude={"models"}), settings.features, cards,
            self.pool.fingerprint(), [split.fingerprint() for split in splits],
        )  # fmt: skip


def _classify(job: _Job, granularity: str, model: str) -> Path:
    """Train a model on every fold of a subject and write its scores of the test trials, unless that is done."""
    run, kind = job.run, find_classifier(model)
    where = Path(run.settings.split.protocol) / granularity
    name = f"{model.replace(':', '_')}_s{job.subject}"
    path = run.folder / "classification" / where / f"{name}.npy"
    splits = job.splits(granularity)
    inputs = job.inputs(splits, model)
    if store.is_done(path, inputs):
        return path
    x = job.features if kind.takes == "features" else job.signal
    used = np.unique(np.concatenate([rows for split in splits for rows in split.parts().values()]))
    y = np.full(len(job.pool), -1)
    concepts, y[used] = np.unique(job.pool.column("concept")[used], return_inverse=True)
    spec = TrialSpec(job.pool.ch_names, job.pool.sfreq, x.shape[2], len(concepts))
    outcomes = [train_classifier(model, x, y, split, spec, run.settings.classify) for split in splits]
    for fold, outcome in enumerate(outcomes):
        if outcome.weights:
            _save_weights(run.folder / "models" / where / f"{name}_fold{fold}.safetensors", outcome, inputs, concepts)
    tests, sizes = np.concatenate([split.test for split in splits]), [len(split.test) for split in splits]
    folds = np.repeat(np.arange(len(splits)), sizes)
    columns = [job.pool.column("order")[tests], y[tests], folds, job.units(tests)]
    scores = np.concatenate([outcome.scores for outcome in outcomes])
    adapted = {TRANSDUCTIVE} if run.settings.classify.domain_adaptation and model == "rgnn" else set()
    card = {
        "model": model, "title": kind.title, "subject": job.subject, "granularity": granularity,
        "protocol": run.settings.split.protocol, "settings": run.settings.classify.model_dump(mode="json"),
        "columns": [*COLUMNS, "scores of concepts"], "concepts": concepts.tolist(),
        "accuracy": {
            which: float(np.average([outcome.accuracy[which] for outcome in outcomes], weights=sizes))
            for which in outcomes[0].accuracy
        },
        "selection": splits[0].selection, "chosen": [outcome.chosen for outcome in outcomes],
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 3),
        "warnings": sorted(adapted.union(*(split.warnings for split in splits))),
        "history": [outcome.history for outcome in outcomes],
    }  # fmt: skip
    store.write_array(path, np.column_stack([*columns, scores]).astype(np.float32), inputs, card)
    return path


def _save_weights(path: Path, outcome: Outcome, inputs: str, concepts: np.ndarray) -> None:
    """Write a network as safetensors with its card."""
    from safetensors.numpy import save_file

    with store.atomic(path) as temporary:
        save_file({name: np.ascontiguousarray(array) for name, array in outcome.weights.items()}, temporary)
    store.finish(path, inputs, {"concepts": concepts.tolist(), "chosen": outcome.chosen})


def _read_cell(path: Path) -> Cell:
    """Read what `_classify` wrote."""
    card, table = store.read_card(path), store.read_array(path, "scores; `neurocanvas classify` makes them")
    _, true, folds, units = table[:, : len(COLUMNS)].astype(np.int64).T
    return Cell(
        card["protocol"], card["granularity"], card["model"], card["title"], card["subject"], table[:, len(COLUMNS) :],
        true, folds, units, card["accuracy"], card["seconds"], tuple(card["warnings"]),
    )  # fmt: skip


def classify(run: Run) -> list[Path]:
    """Train the classifiers of the settings on every subject's trials, under the protocol of the settings.

    Simulated data and features that are not there yet are made first; imported features are used as they are.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        The tables `scores/classification.*`, and one file of scores per model and subject.
    """
    return _run_grid(run, [run.settings.split.protocol], [run.settings.data.granularity], "classification", workers=1)


def benchmark(run: Run) -> list[Path]:
    """Train every classifier under every protocol on every granularity and subject; make the paper's table.

    Subjects are worked on at the same time, and what is done is not done again.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        The tables `scores/benchmark.*`, and one file of scores per cell.
    """
    asked = run.settings.benchmark
    everything = run.settings.model_copy(update={"data": run.settings.data.model_copy(update={"granularity": "all"})})
    granularities = [one for name in asked.granularities for one in (FINE if name == "fine" else (name,))]
    protocols = list(asked.protocols) or [run.settings.split.protocol]
    return _run_grid(replace(run, settings=everything), protocols, granularities, "benchmark", workers=asked.workers)


def _run_grid(
    run: Run, protocols: Sequence[str], granularities: Sequence[str], name: str, *, workers: int
) -> list[Path]:
    """Do every cell, then write the tables."""
    models = run.settings.classify.models
    simulate(run)
    runs = [_with_protocol(run, protocol) for protocol in protocols]
    for one in runs:
        if any(find_classifier(model).takes == "features" for model in models):
            features(one, keep_imported=True)
    subjects = sorted({subject for one in runs for subject in one.subjects})
    workers = min(len(subjects), workers or os.cpu_count() or 1)
    advance = run.track(name, sum(len(one.subjects) for one in runs) * len(granularities) * len(models))
    paths: list[Path] = []
    if workers == 1:
        for subject in subjects:
            paths += _do_subject(runs, subject, granularities, advance)
    else:
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
            tasks = [
                pool.submit(_do_subject, [replace(one, track=untracked) for one in runs], subject, granularities)
                for subject in subjects
            ]
            try:
                for task in as_completed(tasks):
                    paths += task.result()
                    advance(len(task.result()))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return [*_write_tables(run, [_read_cell(path) for path in paths], name), *paths]


def _with_protocol(run: Run, protocol: str) -> Run:
    """The same run under another protocol."""
    split = run.settings.split.model_copy(update={"protocol": protocol})
    return replace(run, settings=run.settings.model_copy(update={"split": split}))


def _do_subject(
    runs: Sequence[Run], subject: int, granularities: Sequence[str], advance: Advance | None = None
) -> list[Path]:
    """All cells of one subject; its trials are read once per protocol."""
    paths = []
    for run in runs:
        if subject not in run.subjects:  # the protocol cannot test this one
            continue
        job = _Job(run, subject)
        for granularity in granularities:
            for model in run.settings.classify.models:
                paths.append(_classify(job, granularity, model))
                if advance is not None:
                    advance(1)
    return paths


def _one_thread() -> None:
    """Keep a worker to one thread: there is one worker per core."""
    import torch
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    torch.set_num_threads(1)


def _write_tables(run: Run, cells: Sequence[Cell], name: str) -> list[Path]:
    """Write the rows as JSON, text, CSV and LaTeX."""
    asked = run.settings.benchmark
    models = list(run.settings.classify.models)
    cells = sorted(cells, key=lambda cell: models.index(cell.model))
    rows = summarise_cells(cells, count=asked.permutations, seed=asked.seed)
    stem = run.folder / "scores" / name
    texts = {".txt": as_text(rows), ".csv": as_csv(rows), ".tex": as_latex(rows)}
    for suffix, text in texts.items():
        store.write_text(stem.with_suffix(suffix), text)
    content = {"explanation": EXPLANATION, "tables": paper_tables(rows), "rows": rows}
    store.write_json(stem.with_suffix(".json"), content)
    return [stem.with_suffix(suffix) for suffix in (*texts, ".json")]
