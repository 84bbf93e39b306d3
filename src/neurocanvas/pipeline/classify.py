"""The stages classify and benchmark: which concept was seen, by every model, protocol, granularity and subject."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.config import ClassifySettings
from neurocanvas.data.eeg_imagenet import fine_groups, granularity_rows
from neurocanvas.data.splits import Split, is_blocked, make_splits
from neurocanvas.data.trials import Trials
from neurocanvas.encoders.estimators import Network, TrialSpec, find_classifier
from neurocanvas.errors import NeuroCanvasError, check_file
from neurocanvas.evaluation.benchmark import (
    Cell,
    as_csv,
    as_latex,
    as_text,
    explanation,
    paper_tables,
    summarise_cells,
)
from neurocanvas.features.differential_entropy import cut_window
from neurocanvas.parallel import process_cache
from neurocanvas.pipeline.run import Run
from neurocanvas.pipeline.train import features, pooled_features_paths, read_pooled_features, simulate
from neurocanvas.training.classification import (
    HIDDEN,
    Outcome,
    accuracy_by_epoch,
    score,
    train_classifier,
    trained_rows,
)

# What stands before the scores in a file of scores; `order` is the trial's place in the subject's recording.
COLUMNS = ("order", "concept", "fold", "unit")

READ_AT_ONCE = 200
# Bytes up to which the signal is read once and kept; that of more trials is read batch by batch, in every epoch.
IN_MEMORY = 500_000_000

UNSELECTED = "none: the last epoch, and the validation trials train too"
TRANSDUCTIVE = "Domain adaptation saw the test trials without their labels: these scores are transductive."

# Settings that one network alone reads; those of networks are no estimator's.
OPTIONS_OF: Mapping[str, frozenset[str]] = MappingProxyType(
    {"eegnet": frozenset({"eegnet"}), "rgnn": frozenset({"rgnn_layout", "domain_adaptation", "edge_penalty"})}
)
OF_NETWORKS = frozenset({"pretrained", "batch_size", "epochs", "patience"})


@dataclass(frozen=True)
class _Signal:
    """The signal of trials in the feature window, µV, read when it is asked for."""

    trials: Trials
    run: Run

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        signal = self.trials.signal(rows)
        return cut_window(signal, self.trials, self.run.settings.features).astype(np.float32, copy=False)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(n_trials, n_chans, n_times)."""
        return (len(self.trials), *self[np.array([0])].shape[1:])

    def read(self) -> np.ndarray:
        """All of it at once."""
        whole = np.empty(self.shape, np.float32)
        for start in range(0, len(whole), READ_AT_ONCE):
            rows = np.arange(start, min(start + READ_AT_ONCE, len(whole)))
            whole[rows] = self[rows]
        return whole


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
    def pool_print(self) -> str:
        """What names the pool."""
        return self.pool.fingerprint()

    @cached_property
    def features(self) -> np.ndarray:
        """Features of the pool."""
        return read_pooled_features(self.run, self.subject)[0]

    @cached_property
    def signal(self) -> Any:
        """Signal of the pool: in memory where it is small, else batch by batch from the file."""
        signal = _Signal(self.pool, self.run)
        return signal.read() if 4 * math.prod(signal.shape) <= IN_MEMORY else signal

    def splits(self, granularity: str) -> list[Split]:
        """Splits of the trials of a granularity; rows count in the pool."""
        settings, rows = self.run.settings, np.arange(len(self.pool))
        if granularity != settings.data.granularity:
            columns = self.pool.column("concept"), self.pool.column("granularity")
            rows = np.flatnonzero(granularity_rows(*columns, granularity))
        concept = self.pool.column("concept")
        own = concept[rows][self.pool.column("subject")[rows] == self.subject]
        if len(np.unique(own)) < 2:
            raise NeuroCanvasError(
                f"granularity: subject {self.subject} has trials of {len(np.unique(own))} concepts of {granularity}, 2 "
                "are needed; leave this granularity or subject out."
            )
        found = make_splits(self.pool.select(rows), settings.split, self.subject)
        found = [replace(split, **{part: rows[own] for part, own in split.parts().items()}) for split in found]
        for split in found:
            trained = np.concatenate([*trained_rows(split, settings.classify).values()])
            lost = np.setdiff1d(concept[split.test], concept[trained])
            if len(lost):
                raise NeuroCanvasError(
                    f"split {split.name}: concept {lost[0]} is tested but never trained; choose another protocol."
                )
        return found

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
            cards = [artifacts.read_card(path)["sha256"] for path in pooled_features_paths(self.run, self.subject)]
        return artifacts.fingerprint(
            "classify 3", model, _read_by(model, settings.classify), settings.features, cards,
            self.pool_print, [split.fingerprint() for split in splits],
        )  # fmt: skip


def _read_by(model: str, settings: ClassifySettings) -> dict[str, Any]:
    """The settings that a model reads, weights by their bytes."""
    unread = {"models"}.union(*(names for other, names in OPTIONS_OF.items() if other != model))
    if not isinstance(find_classifier(model), Network):
        unread |= OF_NETWORKS
    read = settings.model_dump(mode="json", exclude=unread)
    if read.get("pretrained"):
        read["pretrained"] = artifacts.sha256(check_file(read["pretrained"], "weights of a network"))
    return read


@dataclass(frozen=True)
class _Unit:
    """A cell of the table: one model on one subject's trials of a granularity under a protocol."""

    protocol: str
    subject: int
    granularity: str
    model: str


def _classify(run: Run, unit: _Unit) -> Path:
    """Train a model on every fold of a subject and write its scores of the test trials, unless that is done."""
    run = process_cache("classify", "run", (run, unit.protocol), partial(_with_protocol, run, unit.protocol))
    job = process_cache("classify", "job", (run, unit.subject), lambda: _Job(run, unit.subject))
    granularity, model, kind = unit.granularity, unit.model, find_classifier(unit.model)
    splits = job.splits(granularity)
    where = Path(run.settings.split.protocol) / granularity
    name = f"{model.replace(':', '_')}_s{job.subject}"
    path = run.folder / "classification" / where / f"{name}.npy"
    inputs = job.inputs(splits, model)
    if artifacts.is_done(path, inputs):
        return path
    x = job.features if kind.takes == "features" else job.signal
    used = np.unique(np.concatenate([rows for split in splits for rows in split.parts().values()]))
    y = np.full(len(job.pool), -1)
    concepts, y[used] = np.unique(job.pool.column("concept")[used], return_inverse=True)
    spec = TrialSpec(job.pool.ch_names, job.pool.sfreq, x.shape[2], len(concepts))
    outcomes = []
    for split in splits:
        known = y.copy()
        known[split.test] = HIDDEN
        outcomes.append(train_classifier(model, x, known, split, spec, run.settings.classify))
    adapted = {TRANSDUCTIVE} if run.settings.classify.domain_adaptation and model == "rgnn" else set()
    card = {
        "model": model, "title": kind.title, "subject": job.subject, "granularity": granularity,
        "protocol": run.settings.split.protocol, "settings": run.settings.classify.model_dump(mode="json"),
        "concepts": concepts.tolist(),
        "selection": UNSELECTED if run.settings.classify.recipe == "released" else splits[0].selection,
        "warnings": sorted(adapted.union(*(split.warnings for split in splits), *(one.warnings for one in outcomes))),
    }  # fmt: skip
    for fold, outcome in enumerate(outcomes):
        if outcome.weights:
            weights = run.folder / "models" / where / f"{name}_fold{fold}.safetensors"
            _save_weights(weights, outcome, inputs, {**card, "split": splits[fold].fingerprint()})
    tests, sizes = np.concatenate([split.test for split in splits]), [len(split.test) for split in splits]
    folds = np.repeat(np.arange(len(splits)), sizes)
    columns = [job.pool.column("order")[tests], y[tests], folds, job.units(tests)]
    scores = np.concatenate([outcome.scores for outcome in outcomes])
    # from here on test labels are read: every prediction has been made
    true = [y[split.test] for split in splits]
    reached = [score(*one) for one in zip(outcomes, true, strict=True)]
    diagnosis = {}
    if run.settings.classify.diagnose_selection:
        by_epoch = [accuracy_by_epoch(*one) for one in zip(outcomes, true, strict=True)]
        diagnosis = {"test_accuracy_by_epoch_diagnostic": by_epoch}
    artifacts.write_array(path, np.column_stack([*columns, scores]).astype(np.float32), inputs, {
        **card,
        "columns": [*COLUMNS, "scores of concepts"],
        "accuracy": {
            which: float(np.average([fold[which] for fold in reached], weights=sizes)) for which in reached[0]
        },
        "chosen": [outcome.chosen for outcome in outcomes],
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 3),
        "history": [outcome.history for outcome in outcomes],
        **diagnosis,
    })  # fmt: skip
    return path


def _save_weights(path: Path, outcome: Outcome, inputs: str, card: Mapping[str, Any]) -> None:
    """Write a network as safetensors with its card."""
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(array) for name, array in outcome.weights.items()}
    content = save(tensors)  # a full disk is an OSError then, which `save_file` hides
    artifacts.write_artifact(path, content, inputs, {**card, "chosen": outcome.chosen})


def _read_cell(path: Path) -> Cell:
    """Read what `_classify` wrote."""
    card, table = artifacts.read_card(path), artifacts.read_array(path, "scores; `neurocanvas classify` makes them")
    _, true, folds, units = table[:, : len(COLUMNS)].astype(np.int64).T
    return Cell(
        card["protocol"], card["granularity"], card["model"], card["title"], card["subject"], table[:, len(COLUMNS) :],
        true, folds, units, card["accuracy"], card["seconds"], tuple(card["warnings"]),
    )  # fmt: skip


def classify(run: Run) -> list[Path]:
    """Train the classifiers of the settings on every subject's trials, under the protocol of the settings."""
    simulate(run)
    return _run_grid(run, [run.settings.split.protocol], [run.settings.data.granularity], "classification")


def benchmark(run: Run) -> list[Path]:
    """Train every classifier under every protocol on every granularity and subject; make the paper's table."""
    everything = run.settings.model_copy(update={"data": run.settings.data.model_copy(update={"granularity": "all"})})
    run = replace(run, settings=everything)
    simulate(run)
    protocols = list(run.settings.benchmark.protocols) or [run.settings.split.protocol]
    return _run_grid(run, protocols, _tasks(run), "benchmark")


def _tasks(run: Run) -> list[str]:
    """The granularities that are asked for, fine as its groups; of the default ones those that the data have."""
    asked = run.settings.benchmark.granularities
    trials, _ = run.dataset
    concepts, granularities = trials.column("concept"), trials.column("granularity")
    groups = list(fine_groups(concepts, granularities).values())
    present = {
        "all": ["all"],
        "coarse": ["coarse"] if len(np.unique(concepts[granularities == "coarse"])) > 1 else [],
        "fine": [f"fine{group}" for group in sorted(set(groups)) if groups.count(group) > 1],
    }
    missing = [name for name in asked if not present[name]]
    if missing:
        raise NeuroCanvasError(
            f"benchmark.granularities: the data have {', '.join(name for name in present if present[name])}, of two or "
            f"more concepts; got {missing[0]}."
        )
    return [task for name in asked or present for task in present[name]]


def _run_grid(run: Run, protocols: Sequence[str], granularities: Sequence[str], name: str) -> list[Path]:
    """Check everything that can be known before, do every cell, then write the tables."""
    kinds = [find_classifier(model) for model in run.settings.classify.models]
    runs = [_with_protocol(run, protocol) for protocol in protocols]
    for one in runs:
        for subject in one.subjects:
            for granularity in granularities:
                _Job(one, subject).splits(granularity)
    if any(kind.takes == "features" for kind in kinds):
        for one in runs:
            features(one, keep_imported=True)
    units = [
        _Unit(one.settings.split.protocol, subject, granularity, model)
        for one in runs
        for subject in one.subjects
        for granularity in granularities
        for model in run.settings.classify.models
    ]
    paths = list(run.spread("classify", _classify, units, title=name))
    return _write_tables(run, [_read_cell(path) for path in paths], name)


def _with_protocol(run: Run, protocol: str) -> Run:
    """The same run under another protocol."""
    split = run.settings.split.model_copy(update={"protocol": protocol})
    return replace(run, settings=run.settings.model_copy(update={"split": split}))


def _write_tables(run: Run, cells: Sequence[Cell], name: str) -> list[Path]:
    """Write the rows as JSON, text, CSV and LaTeX."""
    asked = run.settings.benchmark
    models = list(run.settings.classify.models)
    cells = sorted(cells, key=lambda cell: models.index(cell.model))
    rows = summarise_cells(cells, count=asked.permutations, seed=asked.seed)
    stem = run.folder / "scores" / name
    texts = {".txt": as_text(rows), ".csv": as_csv(rows), ".tex": as_latex(rows)}
    for suffix, text in texts.items():
        artifacts.write_text(stem.with_suffix(suffix), text)
    content = {"explanation": explanation(rows), "tables": paper_tables(rows), "rows": rows}
    artifacts.write_json(stem.with_suffix(".json"), content)
    return [stem.with_suffix(suffix) for suffix in (*texts, ".json")]
