"""The verbs classify and benchmark: which concept was seen, by every model, protocol, granularity and subject."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.config import ClassifySettings
from neurocanvas.data.eeg_imagenet import fine_groups, granularity_rows
from neurocanvas.data.splits import Split, exchangeable_units
from neurocanvas.decoder import Decoder
from neurocanvas.encoders import find_encoder
from neurocanvas.errors import NeuroCanvasError, check_file
from neurocanvas.evaluation.benchmark import Cell, as_csv, explanation, paper_tables, summarise_cells
from neurocanvas.findings import finding, listed, read_findings
from neurocanvas.parallel import process_cache
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.pipeline.train import features, made_from, read_inputs, simulate, write_trials

# Columns before the scores in a file of scores; `order` is the trial's position in the subject's recording.
COLUMNS = ("order", "concept", "fold", "unit")

# Replaces the concept of test trials while decoders are fitted; no concept has this name.
HIDDEN = ""

UNSELECTED = "none: the last epoch, and the validation trials train too"

# Settings that only one network reads, and those that no scikit-learn estimator reads.
OPTIONS_OF: Mapping[str, frozenset[str]] = {
    "eegnet": frozenset({"eegnet"}), "rgnn": frozenset({"rgnn_layout", "domain_adaptation", "edge_penalty"}),
}  # fmt: skip
OF_NETWORKS = frozenset({"pretrained", "batch_size", "epochs", "patience"})


def _split(run: RunFolder, subject: str, granularity: str, within: str) -> Split:
    """The split of a subject's trials of a granularity; rows refer to the pool."""
    settings, pool = run.settings, run.pool(subject)
    part, concept = "" if granularity == settings.data.granularity else granularity, pool.y
    rows = (pool.column("subject") == subject) & granularity_rows(pool, part or "all")
    if (n_concepts := len(np.unique(concept[rows]))) < 2:
        raise NeuroCanvasError(
            f"granularity: subject {subject} has trials of {n_concepts} concepts of {granularity}, 2 "
            "are needed; leave this granularity or subject out."
        )
    split = run.split(subject, within, part)
    for fold in split:
        validation = fold.validation if settings.classify.recipe == "released" else fold.validation[:0]
        trained = concept[np.concatenate([fold.pretrain, fold.train, validation])]
        untrained = np.setdiff1d(concept[fold.test], trained)
        if len(np.unique(trained)) < 2:
            raise NeuroCanvasError(
                f"split {fold.name}: training trials of 2 or more concepts are needed, got 1; choose another "
                "granularity or protocol."
            )
        if len(untrained):
            raise NeuroCanvasError(
                f"split {fold.name}: concept {untrained[0]} is tested but never trained; choose another protocol."
            )
    return split


def _make_decoder(run: RunFolder, model: str) -> Decoder:
    """The unfitted decoder of concepts that the settings describe."""
    settings, of_features, where = run.settings.classify, run.settings.features, run.settings.execution
    of_model: dict[str, dict[str, Any]] = {
        "eegnet": {"encoder__size": settings.eegnet},
        "rgnn": {
            "encoder__layout": settings.rgnn_layout, "encoder__domain_adaptation": settings.domain_adaptation,
            "encoder__edge_penalty": settings.edge_penalty,
        },
    }  # fmt: skip
    return Decoder(
        model, "concept", window=(of_features.tmin, of_features.tmax), features=of_features.method,
        epochs=settings.epochs, patience=settings.patience, batch_size=settings.batch_size, recipe=settings.recipe,
        bands=of_features.bands or None, seed=settings.seed, device=where.device, precision=where.precision,
        **of_model.get(model, {}),
    )  # fmt: skip


def _read_by(decoder: Decoder, settings: ClassifySettings) -> dict[str, Any]:
    """The settings that a model reads, weights by their bytes."""
    unread = {"models"}.union(*(names for other, names in OPTIONS_OF.items() if other != decoder.encoder))
    if find_encoder(decoder.encoder).parameter:
        unread |= OF_NETWORKS
    read = settings.model_dump(mode="json", exclude=unread)
    if read.get("pretrained"):
        read["pretrained"] = artifacts.sha256(check_file(read["pretrained"], "weights of a network"))
    return read


def _classify(run: RunFolder, unit: tuple[str, str, str, str, str]) -> Path:
    """Train a model on every fold of a subject and write its scores of the test trials, unless they are there."""
    protocol, subject, granularity, within, model = unit
    run = process_cache("classify", "run", (run, protocol), partial(_with_protocol, run, protocol))
    pool, settings, decoder = run.pool(subject), run.settings.classify, _make_decoder(run, model)
    folds, where = _split(run, subject, granularity, within), Path(protocol) / granularity
    name = f"{model.replace(':', '_')}_s{subject}"
    path = run.folder / "classification" / where / f"{name}.npy"
    hashes = made_from(run, subject, decoder)[1] if decoder.takes == "features" else []
    key = artifacts.fingerprint(
        "classify 5", decoder.encoder, _read_by(decoder, settings), run.settings.features, hashes,
        process_cache("classify", "trials", (run, subject), pool.fingerprint), [fold.fingerprint() for fold in folds],
    )  # fmt: skip
    if artifacts.is_cached(path, key):
        return path
    x = process_cache("classify", decoder.takes, (run, subject), lambda: read_inputs(run, subject, decoder))
    concept = pool.y
    concepts = np.unique(concept[np.concatenate([rows for fold in folds for rows in fold.parts().values()])])
    decoders, scores, seconds = [], [], 0.0
    for fold in folds:
        labels, started = concept.copy(), time.perf_counter()
        labels[fold.test] = HIDDEN
        decoders.append(_make_decoder(run, model).fit_prepared(
            x, labels, pool.spec, train=fold.train, validation=fold.validation, pretrain=fold.pretrain,
            adapt_to=fold.test if settings.domain_adaptation else None, watch=fold.test,
            watch_epochs=settings.diagnose_selection, classes=concepts, start=settings.pretrained,
        ))  # fmt: skip
        scores.append(decoders[-1].outputs(x[fold.test]))
        seconds += time.perf_counter() - started
    findings = [item for fold in folds for item in fold.findings]
    findings += [finding(code) for decoder in decoders for code in decoder.findings_]
    if settings.domain_adaptation and model == "rgnn":
        findings.append(finding("transductive-training"))
    sidecar = {
        "model": model, "title": find_encoder(model).title, "subject": subject, "granularity": granularity,
        "protocol": protocol, "settings": settings.model_dump(mode="json"),
        "device": decoders[0].device_, "precision": decoders[0].precision_, "concepts": concepts.tolist(),
        "selection": UNSELECTED if settings.recipe == "released" else folds[0].selection,
        "findings": listed(findings),
        "split": (Path("splits") / within / f"{subject}.json").as_posix(),
    }  # fmt: skip
    for number, decoder in enumerate(decoders):
        if decoder.is_module_:
            weights = run.folder / "models" / where / f"{name}_fold{number}.safetensors"
            decoder.save(weights)
            sidecar_of_fold = {**sidecar, "split": folds[number].fingerprint(), "chosen": decoder.chosen_}
            artifacts.write_sidecar(weights, key, sidecar_of_fold)
    # from here on test labels are read: every prediction has been made
    tests, sizes = np.concatenate([fold.test for fold in folds]), [len(fold.test) for fold in folds]
    true, by_epoch = [np.searchsorted(concepts, concept[fold.test]) for fold in folds], []
    accuracy: dict[str, list[float]] = {"selected": [], "final": []}
    for decoder, outputs, labels in zip(decoders, scores, true, strict=True):
        predicted = outputs.argmax(axis=1)
        accuracy["selected"].append(float(np.mean(predicted == labels)))
        accuracy["final"].append(float(np.mean((predicted if decoder.final_ is None else decoder.final_) == labels)))
        by_epoch.append([float(np.mean(every == labels)) for every in decoder.every_])
    if by_epoch[0]:
        accuracy["best_on_test"] = list(map(max, by_epoch))
    number_of_fold = np.repeat(np.arange(len(folds)), sizes)
    units = np.concatenate([exchangeable_units(pool, fold)[1] for fold in folds])
    columns = [pool.column("order")[tests], np.concatenate(true), number_of_fold, units]
    artifacts.write_array(path, np.column_stack([*columns, np.concatenate(scores)]).astype(np.float32), key, {
        **sidecar,
        "columns": [*COLUMNS, "scores of concepts"],
        "accuracy": {which: float(np.average(values, weights=sizes)) for which, values in accuracy.items()},
        "chosen": [decoder.chosen_ for decoder in decoders],
        "seconds": round(seconds, 3),
        "history": [decoder.history_ for decoder in decoders],
        **({"test_accuracy_by_epoch_diagnostic": by_epoch} if by_epoch[0] else {}),
    }, made_from(run, subject, decoder)[0])  # fmt: skip
    return path


def _read_cell(path: Path) -> Cell:
    """Read what `_classify` wrote."""
    sidecar = artifacts.read_sidecar(path)
    table = artifacts.read_array(path, "scores; `neurocanvas classify` makes them")
    _, true, folds, units = table[:, : len(COLUMNS)].astype(np.int64).T
    return Cell(
        sidecar["protocol"], sidecar["granularity"], sidecar["model"], sidecar["title"], sidecar["subject"],
        table[:, len(COLUMNS) :],
        true, folds, units, sidecar["accuracy"], sidecar["seconds"], read_findings(sidecar["findings"]),
    )  # fmt: skip


def classify(run: RunFolder) -> list[Path]:
    """Train the classifiers of the settings on every subject's trials, under the protocol of the settings."""
    simulate(run)
    protocol, granularity = run.settings.split.protocol, run.settings.data.granularity
    return _run_grid(run, [protocol], [granularity], "classification", (protocol, granularity))


def benchmark(run: RunFolder) -> list[Path]:
    """Train every classifier under every protocol on every granularity and subject; make the paper's table."""
    of_run = run.settings.split.protocol, run.settings.data.granularity
    everything = run.settings.model_copy(update={"data": run.settings.data.model_copy(update={"granularity": "all"})})
    run = replace(run, settings=everything)
    simulate(run)
    trials, settings = run.dataset, run.settings.benchmark
    concepts = trials.column("concept")
    granularities = trials.column("granularity") if "granularity" in trials.metadata else np.full(len(trials), "")
    groups = list(fine_groups(concepts, granularities).values())
    present = {
        "all": ["all"],
        "coarse": ["coarse"] if len(np.unique(concepts[granularities == "coarse"])) > 1 else [],
        "fine": [f"fine{group}" for group in sorted(set(groups)) if groups.count(group) > 1],
    }
    for name in settings.granularities:
        if not present[name]:
            raise NeuroCanvasError(
                f"benchmark.granularities: the data have {', '.join(filter(present.get, present))}, of two or more "
                f"concepts; got {name}."
            )
    parts = [part for name in settings.granularities or present for part in present[name]]
    return _run_grid(run, list(settings.protocols) or [run.settings.split.protocol], parts, "benchmark", of_run)


def _run_grid(
    run: RunFolder, protocols: Sequence[str], granularities: Sequence[str], name: str, of_run: tuple[str, str]
) -> list[Path]:
    """Check every split, train every cell, then write the rows; `of_run` is the run's protocol and granularity."""
    models = list(run.settings.classify.models)
    takes = {find_encoder(model).inputs[0] for model in models}
    runs = [_with_protocol(run, protocol) for protocol in protocols]
    units = []
    for under, protocol in zip(runs, protocols, strict=True):
        for subject in under.subjects:
            for granularity in granularities:
                within = "" if (protocol, granularity) == of_run else f"{protocol}/{granularity}"
                _split(under, subject, granularity, within)
                units += [(protocol, subject, granularity, within, model) for model in models]
    for under in runs:
        if "features" in takes:
            features(under, keep_imported=True)
        for subject in under.opened:  # the audit reads these, whatever the models are made from
            write_trials(under, subject)
    cells = list(map(_read_cell, run.spread("classify", _classify, units, title=name)))
    cells.sort(key=lambda cell: models.index(cell.model))
    rows = summarise_cells(cells, count=run.settings.benchmark.permutations, seed=run.settings.benchmark.seed)
    table, content = (run.folder / "scores" / f"{name}{suffix}" for suffix in (".csv", ".json"))
    artifacts.write_text(table, as_csv(rows))
    artifacts.write_json(content, {"explanation": explanation(rows), "tables": paper_tables(rows), "rows": rows})
    return [table, content]


def _with_protocol(run: RunFolder, protocol: str) -> RunFolder:
    """The same run under another protocol."""
    split = run.settings.split.model_copy(update={"protocol": protocol})
    return replace(run, settings=run.settings.model_copy(update={"split": split}))
