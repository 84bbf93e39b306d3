"""From data to predictions: the verbs simulate, features, caption, embed, train and predict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.config import ARCHITECTURES
from neurocanvas.data.inspect import signal_groups
from neurocanvas.data.splits import EXCHANGED, blocked_trials, exchangeable_units, groups
from neurocanvas.data.trials import Trials, unique_names
from neurocanvas.decoder import EXECUTION, RELEASED_EPOCHS, Decoder, Embeddings, load_decoder, project
from neurocanvas.encoders import find_encoder
from neurocanvas.errors import NeuroCanvasError, check_file, check_name
from neurocanvas.evaluation.statistics import CROSS_VALIDATED, mean_interval, paired_permutation_p
from neurocanvas.features.window import Window
from neurocanvas.findings import Finding, finding, listed, read_findings
from neurocanvas.generation.arms import gain
from neurocanvas.parallel import process_cache
from neurocanvas.pipeline.run import RunFolder, write_table
from neurocanvas.targets import TARGETS, TargetSpace, target_space
from neurocanvas.targets.captions import captioner_of, load_captioner, prompt, read_captions, write_captions
from neurocanvas.targets.clip import N_TOKENS, count_long
from neurocanvas.targets.pretrained import batches, find_family, source_hash
from neurocanvas.training.losses import mse_per_element, two_way_of_trials

# Purpose of a file of features, for errors.
FEATURES = "features; `neurocanvas features` makes them"

# What the sidecars of features that train together must agree on.
MADE_BY = ("method", "window", "ch_names", "bands")

# Trials that are predicted in one batch; captions or images that one task encodes.
AT_ONCE, IMAGES_AT_ONCE = 64, 32

# A signal of at most this many bytes is read once and stays in memory; a larger one is read batch by batch.
IN_MEMORY = 500_000_000

LICENCE = "MIT for the weights; the terms of the recordings and images that they were trained on apply as well"

# Parameters on which an encoder in closed form depends.
OF_CLOSED_FORM = ("encoder", "target", "window", "features", "n_components", "token_weights")


def simulate(run: RunFolder) -> list[Path]:
    """Write the simulated data set into the run folder."""
    if run.settings.simulate is None:
        return []
    from neurocanvas.simulation.dataset import simulate as write_simulation
    from neurocanvas.simulation.decodability import measure

    advance, folder = run.track("simulate", run.settings.simulate.n_trials), run.folder / "data"
    path = write_simulation(run.settings.simulate, folder, progress=advance)
    measure(folder, run.settings.simulate)
    return [path]


def features(run: RunFolder, *, keep_imported: bool = False) -> list[Path]:
    """Compute the features of every subject, and of others whose trials the protocol trains on."""
    return list(run.spread("features", partial(_extract, keep_imported=keep_imported), list(run.opened)))


def _extract(run: RunFolder, subject: str, *, keep_imported: bool) -> Path:
    """Compute one subject's features, unless they are there."""
    from neurocanvas.features.differential_entropy import UNITS, extract, usable_bands

    trials, settings, path = run.opened[subject], run.settings.features, run.path("features", subject)
    inputs = artifacts.fingerprint("features", trials.fingerprint(), settings, list(settings.bands))
    imported = keep_imported and path.is_file() and artifacts.read_sidecar(path).get("imported")
    bands = usable_bands(settings.bands, trials.spec)
    if not (imported or artifacts.is_cached(path, inputs)):
        [values] = artifacts.cached("features", [inputs], lambda _: [extract(trials, settings)])
        sidecar = {
            "method": settings.method, "ch_names": list(trials.spec.ch_names), "bands": list(bands), "edges": bands,
            "window": [settings.tmin, settings.tmax], "unit": UNITS[settings.method],
        }  # fmt: skip
        artifacts.write_array(path, values, inputs, sidecar)
    write_trials(run, subject)
    return path


def write_trials(run: RunFolder, subject: str) -> None:
    """Write a subject's trial table beside the features."""
    path, trials = run.path("features", subject).with_name(f"s{subject}_trials.csv"), run.opened[subject]
    [signal] = artifacts.cached("signals", [artifacts.fingerprint("signals", trials.fingerprint())],
                                lambda _: [signal_groups(trials)])  # fmt: skip
    columns = {name: trials.column(name) for name in trials.metadata}
    write_table(path, {"trial": trials.names, **columns, "signal": signal})


def caption(run: RunFolder) -> list[Path]:
    """Caption every image: by a captioner, by its concept's name, or from a file."""
    settings, ids = run.settings.caption, run.stimuli
    path, images = run.folder / "targets" / "caption.txt", run.images
    captions: dict[str, str] | None = None
    if settings.source == "class-names":
        captions = {name: prompt(images.names[images.concepts[name]]) for name in ids}
    elif settings.source.endswith(".txt"):
        captions = read_captions(Path(settings.source), ids, "add it, or caption by a network")
    made_by: Any = captions
    if captions is None:
        captioner = captioner_of(settings.source) if settings.source else find_family(run.settings.family).captioner
        made_by = source_hash(captioner)
    hashes = {name: images.file_hash(name) for name in ids}  # the audit compares images by these
    keys = [artifacts.fingerprint("caption", made_by, settings.recipe, hashes[name] or name) for name in ids]
    inputs = artifacts.fingerprint("caption", ids, keys)
    if artifacts.is_cached(path, inputs):
        return [path]
    if captions is None:
        texts = artifacts.cached("captions", keys, partial(_apply_network, run, "caption", ids))
        captions = dict(zip(ids, map(str, texts), strict=True))
    write_captions(path, captions)
    artifacts.write_sidecar(path, inputs, {
        "source": settings.source or run.settings.family, "recipe": settings.recipe, "images": hashes,
    })  # fmt: skip
    return [path]


def embed(run: RunFolder) -> list[Path]:
    """Encode every caption for the generator, and captions or images in the target space of the encoder."""
    images, file = run.images, run.folder / "targets" / "caption.txt"
    captions, weights = read_captions(file, run.stimuli, "run `neurocanvas caption`"), source_hash(run.settings.family)
    paths: list[Path] = []
    for target in dict.fromkeys(("clip-text", run.settings.embed.target)):
        space, path = target_space(f"{target}@{run.settings.family}"), run.path("embeddings", target)
        of_images = TARGETS[target].of == "image"
        sources = [images.file_hash(name) or name if of_images else captions[name] for name in run.stimuli]
        keys = [artifacts.fingerprint("embedding", str(space), weights, source) for source in sources]
        inputs = artifacts.fingerprint("embed", run.stimuli, keys)
        paths.append(path)
        if artifacts.is_cached(path, inputs):
            continue
        items = run.stimuli if of_images else [captions[name] for name in run.stimuli]
        sidecar = {"family": run.settings.family, "target": str(space), "stimuli": run.stimuli}
        rows, shape = artifacts.cached("embeddings", keys, partial(_apply_network, run, str(space), items)), space.shape
        made_from = [] if of_images else [file]
        found = []
        if not of_images and (n := count_long(items, run.settings.family)):
            found.append(finding("captions-cut", n=n, of=len(items), tokens=N_TOKENS))
        checked = _with_findings(rows, sidecar, found, target, sources)
        artifacts.write_array(path, checked, inputs, sidecar, made_from, shape=(len(keys), *shape), dtype=np.float16)
    return paths


def _with_findings(
    rows: Iterable[np.ndarray], sidecar: dict[str, Any], found: Sequence[Finding], target: str, sources: Sequence[str]
) -> Iterator[np.ndarray]:
    """Pass embeddings on; then add findings to the sidecar, which is written after them: also equal embeddings."""
    images: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        images.setdefault(artifacts.fingerprint(np.asarray(row, np.float16)), []).append(index)
        yield row
    equal = [of_one for of_one in images.values() if len({sources[index] for index in of_one}) > 1]
    if equal:  # captions or files that differ
        first = equal[0][0]
        second = next(index for index in equal[0] if sources[index] != sources[first])
        names = {"first": sidecar["stimuli"][first], "second": sidecar["stimuli"][second]}
        n = sum(map(len, equal))
        found = [*found, finding("equal-embeddings", n=n, of=len(sources), target=target, **names)]
    sidecar["findings"] = listed(found)


def _apply_network(run: RunFolder, network: str, items: Sequence[str], indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Captions, or embeddings in a target space, of the items with these indices: names of images, or captions."""
    units = [(network, [items[index] for index in indices[batch]]) for batch in batches(len(indices), IMAGES_AT_ONCE)]
    stage, sizes = "caption" if network == "caption" else "embed", [len(batch) for _, batch in units]
    for results in run.spread(stage, _apply_to_batch, units, title=network, sizes=sizes):
        yield from map(np.asarray, results)


def _apply_to_batch(run: RunFolder, unit: tuple[str, Sequence[Any]]) -> Sequence[str] | np.ndarray:
    """Captions of some images, or embeddings of images or captions in a target space."""
    name, items = unit
    kind, _, family = name.partition("@")
    if kind == "caption":
        source, recipe = run.settings.caption.source or run.settings.family, run.settings.caption.recipe
        network = process_cache("caption", "captioner", (source, recipe), lambda: load_captioner(source, recipe))
    else:
        network = process_cache("embed", "encoder", name, lambda: resolve_name(TARGETS[kind].load)(family))
    if kind == "caption" or TARGETS[kind].of == "image":
        items = [run.images.picture(item) for item in items]
    results: Sequence[str] | np.ndarray = network(items)
    return results


def read_inputs(run: RunFolder, subject: str, decoder: Decoder | None = None) -> Any:
    """Features of a subject's pool (also without a decoder), or its signal in the decoder's window."""
    pool = run.pool(subject)
    if decoder is not None and decoder.takes == "signal":
        window = Window([pool], pool.spec, decoder.window)
        return window.read() if 4 * math.prod(window.shape) <= IN_MEMORY else window
    subjects = pool.column("subject")
    settings = artifacts.read_sidecar(check_file(run.path("features", subject), FEATURES))
    pooled: np.ndarray | None = None
    for name in np.unique(subjects).tolist():
        path = run.path("features", name)
        values, sidecar = artifacts.read_array(path, FEATURES), artifacts.read_sidecar(path)
        if len(values) != len(run.opened[name]):
            raise NeuroCanvasError(f"{path}: made for other trials; run `neurocanvas features` again.")
        if any(sidecar.get(key) != settings.get(key) for key in MADE_BY):
            raise NeuroCanvasError(
                f"{path}: made in another way than those of subject {subject}, for which its trials train; run "
                "`neurocanvas features` again."
            )
        pooled = np.empty((len(subjects), *values.shape[1:]), values.dtype) if pooled is None else pooled
        pooled[subjects == name] = values
    return pooled


def made_from(run: RunFolder, subject: str, decoder: Decoder) -> tuple[list[Path], list[str]]:
    """The artifacts that a decoder's inputs are read from, and their hashes."""
    if decoder.takes == "signal":
        return [], [run.pool(subject).fingerprint()]
    subjects = unique_names(run.pool(subject).column("subject"))
    paths = [check_file(run.path("features", name), FEATURES) for name in subjects]
    return paths, [artifacts.read_sidecar(path)["sha256"] for path in paths]


def make_decoder(run: RunFolder, encoder: str, repetition: int = 0) -> Decoder:
    """The unfitted decoder of embeddings that the settings describe, or the one of a script."""
    if run.decoder is not None and encoder == run.settings.encoder.name:
        from sklearn.base import clone

        return clone(run.decoder)  # type: ignore[no-any-return]
    settings, of_features, where = run.settings.encoder, run.settings.features, run.settings.execution
    parameters = dict(settings.parameters) if encoder == settings.name else {}
    if encoder == "mlp_sd":
        hidden, activation = ARCHITECTURES["released" if settings.recipe == "released" else settings.architecture]
        dropout = {name: getattr(settings, name) for name in ("dropout", "input_dropout")}
        parameters = {"hidden": settings.hidden or hidden, **dropout, "activation": activation, **parameters}
    same = (
        "token_weights", "mse", "cosine", "contrastive", "temperature", "learning_rate", "weight_decay", "epochs",
        "batch_size", "patience", "conditions",
    )  # fmt: skip
    recipe = settings.recipe if encoder == settings.name else "default"
    return Decoder(
        encoder, f"{run.settings.embed.target}@{run.settings.family}", window=(of_features.tmin, of_features.tmax),
        features=of_features.method, n_components=settings.components, device=where.device, precision=where.precision,
        recipe=recipe, seed=settings.seed + repetition, bands=of_features.bands or None,
        **{name: getattr(settings, name) for name in same},
        **{f"encoder__{name}": value for name, value in parameters.items()},
    )  # fmt: skip


def train(run: RunFolder) -> list[Path]:
    """Train the encoder, and its baselines, for every subject and fold."""
    names = dict.fromkeys((run.settings.encoder.name, *run.settings.encoder.baselines))
    for name in names if run.decoder is None else ():
        find_encoder(name, "embedding")
    for subject in run.opened:  # the audit reads these, even where the encoder takes signal
        write_trials(run, subject)
    again = {name: range(1 if _closed_form(make_decoder(run, name)) else run.settings.encoder.seeds) for name in names}
    units = [  # raises before anything is trained if one cannot be split
        (subject, fold, name, number)
        for subject in run.subjects for fold in range(len(run.split(subject).folds)) for name in names
        for number in again[name]
    ]  # fmt: skip
    return list(run.spread("train", _train, units))


def _closed_form(decoder: Decoder) -> bool:
    return hasattr(decoder.encoder_class()[0], "fit_closed_form")


def _train(run: RunFolder, unit: tuple[str, int, str, int]) -> Path:
    """Train one encoder for one subject and fold, unless it is there; continue after a kill."""
    subject, number, name, repetition = unit
    pool, decoder = run.pool(subject), make_decoder(run, name, repetition)
    path = run.path("decoder", subject, number, name, repetition)
    fold = run.split(subject).folds[number].joined()
    read, hashes = made_from(run, subject, decoder)
    parameters = {key: value for key, value in decoder.get_params(deep=False).items() if key not in EXECUTION}
    if not isinstance(decoder.encoder, str):  # a class or an estimator from a script
        parameters["encoder"] = getattr(decoder.encoder, "__qualname__", str(decoder.encoder))
    if closed_form := _closed_form(decoder):
        of_encoder = {key: value for key, value in parameters.items() if key.startswith("encoder__")}
        parameters = {key: parameters[key] for key in OF_CLOSED_FORM} | of_encoder
    embedded = run.path("embeddings", run.settings.embed.target)
    target_hash = artifacts.read_sidecar(check_file(embedded, "embeddings; `neurocanvas embed` makes them"))["sha256"]
    inputs = artifacts.fingerprint("train 5", hashes, target_hash, run.stimuli, fold.fingerprint(), parameters)
    state = path.with_name(path.name + ".state")
    if artifacts.is_cached(path, inputs):
        state.unlink(missing_ok=True)  # left by a killed run
        return path
    targets = run.targets()
    space = TargetSpace(run.settings.embed.target, targets.shape[1:], run.settings.family)
    y = Embeddings(space, run.stimuli, targets, np.searchsorted(run.stimuli, pool.column("image")))
    common = decoder.n_components, tuple(decoder.token_weights)
    projected = process_cache("train", "targets", (run, unit[:2], common), lambda: project(y, fold.train, *common))
    epochs = 0 if closed_form else RELEASED_EPOCHS if decoder.recipe == "released" else decoder.epochs or 0
    advance = run.track(f"train {name} s{subject} fold{number}", epochs)

    def note(line: dict[str, Any]) -> None:
        run.log("train", subject=subject, fold=number, **line)
        advance(1)

    x = process_cache("train", decoder.takes, (run, subject), lambda: read_inputs(run, subject, decoder))
    decoder.fit_prepared(
        x, y, pool.spec, train=fold.train, validation=fold.validation, projected=projected, state=state, log=note
    )
    advance(max(0, epochs - len(decoder.history_)))  # most trainings end early
    # test labels are read after all predictions
    parts, scores = {"val": fold.validation, "test": fold.test}, {}
    predictions = {part: (decoder.outputs(x[rows]), decoder.network_outputs(x[rows])) for part, rows in parts.items()}
    two_way = {}
    for part, (predicted, output) in predictions.items():
        image = y.row_of_trial[parts[part]]
        true, distance = projected[1][image], projected[2][image]
        scores[f"{part}_mse"] = mse_per_element(predicted, true, distance, decoder.basis_)
        two_way[part] = two_way_of_trials(output, true, distance, image)
        scores[f"{part}_two_way"] = float(np.mean(two_way[part]))
    units = np.unique(exchangeable_units(pool, fold)[1], return_inverse=True)[1]
    inside = np.sum(decoder.basis_.target_sd.astype(np.float64) ** 2)
    outside = np.mean(projected[2][y.row_of_trial[fold.train]])
    of_targets = read_findings(artifacts.read_sidecar(embedded).get("findings", []))
    sidecar = {
        "encoder": name, "target": decoder.target, "spec": asdict(decoder.input_spec), "settings": parameters,
        "device": decoder.device_, "precision": decoder.precision_,
        "split": {"name": fold.name, "fingerprint": fold.fingerprint(pool.names)}
        | {part: len(rows) for part, rows in fold.parts().items()},
        "selection": f"lowest validation error; validation trials are {fold.selection}",
        "history": decoder.history_, "selected_epoch": decoder.chosen_,
        "scores": {name: scores}, "repetition": repetition, "place": [subject, number],
        "of_trials": {"units": units.tolist(), "two_way": two_way["test"].round(6).tolist()},
        "explained": float(inside / (inside + outside)), "licence": LICENCE,
        "findings": listed([*fold.findings, *of_targets]),
    }  # fmt: skip
    decoder.save(path)
    artifacts.write_sidecar(path, inputs, sidecar, [*read, embedded])
    state.unlink(missing_ok=True)
    return path


def training_table(sidecars: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Scores of encoders and baselines, mean over trainings, as a table; None if no sidecar holds scores."""
    sidecars = [sidecar for sidecar in sidecars if sidecar.get("scores")]
    if not sidecars:
        return None
    lines, repetitions = [], 1 + max(sidecar.get("repetition", 0) for sidecar in sidecars)
    of_encoder = {
        name: [sidecar for sidecar in sidecars if name in sidecar["scores"]]
        for name in dict.fromkeys(name for sidecar in sidecars for name in sidecar["scores"])
    }
    for name, mine in of_encoder.items():
        cells = []
        for key in mine[0]["scores"][name]:
            means = [
                np.mean(values) for number in range(repetitions)
                if (values := [one["scores"][name][key] for one in mine if one.get("repetition", 0) == number])
            ]  # fmt: skip
            cells.append(f"{np.mean(means):.4f}" + (f" ± {np.std(means, ddof=1):.4f}" if len(means) > 1 else ""))
        lines.append([name, *cells, _against(mine, of_encoder.get("ridge", ())) if name != "ridge" else ""])
    count = sum(sidecar.get("repetition", 0) == 0 for sidecar in next(iter(of_encoder.values())))
    spread = f", ± standard deviation over {repetitions} seeds" if repetitions > 1 else ""
    return {
        "title": f"Encoders, mean of {count} trainings{spread}; MSE per number of the target (as drawn), two-way among "
        "targets (the encoder's own output, chance .5); difference from ridge on the same test trials, paired",
        "header": ["encoder", "val MSE", "val two-way", "test MSE", "test two-way", "two-way - ridge's"],
        "lines": lines,
        "findings": listed(entry for sidecar in sidecars for entry in read_findings(sidecar["findings"])),
    }


def _mean_over_seeds(sidecars: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Subject and fold -> units of the test trials, and their two-way scores, mean over the trainings of that fold."""
    of_place: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for one in sidecars:
        of_place.setdefault(tuple(one["place"]), []).append(one["of_trials"])
    return {
        place: {"units": some[0]["units"], "two_way": np.mean([one["two_way"] for one in some], axis=0)}
        for place, some in of_place.items()
    }


def _against(mine: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> str:
    """Difference of the two-way scores of the same test trials, its interval, and the two-sided p of a paired test."""
    first, second = (
        _mean_over_seeds([one for one in some if one.get("of_trials")])
        for some in (mine, others)
    )
    folds = [place for place in first if place in second and first[place]["units"] == second[place]["units"]]
    if not folds:
        return ""
    difference = np.concatenate([
        np.subtract(first[place]["two_way"], second[place]["two_way"]) for place in folds
    ])  # fmt: skip
    if not np.isfinite(difference).all():  # one image: nothing to identify it among
        return ""
    named = [f"{place}{unit}" for place in folds for unit in first[place]["units"]]
    units, zero = np.unique(named, return_inverse=True)[1], np.zeros(len(named))
    several = len({subject for subject, _ in folds}) < len(folds)
    widening = CROSS_VALIDATED["score"] if several else 1.0
    p = 2 * min(
        paired_permutation_p(a, b, units, rng=np.random.default_rng(0), widening=widening)
        for a, b in ((difference, zero), (zero, difference))
    )
    interval = mean_interval(difference, units, rng=np.random.default_rng(0), widening=widening)
    between = f" ({interval[0]:+.4f} to {interval[1]:+.4f})" if interval else ""
    return f"{difference.mean():+.4f}{between}, p {min(1.0, p):.4f}"


def select_inputs(
    values: Any, trials: Trials, rows: np.ndarray, average: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs of trials, or their mean over the showings of each image; row of the first showing; number of showings."""
    if not average:
        return values[rows], rows, np.ones(len(rows), dtype=np.int64)
    images = groups(trials, "subject", "image")[rows]
    _, first, index, showings = np.unique(images, return_index=True, return_inverse=True, return_counts=True)
    sums = np.zeros((len(first), *values.shape[1:]))
    np.add.at(sums, index, values[rows])
    return (sums / showings[:, None, None]).astype(np.float32), rows[first], showings


def predict(run: RunFolder) -> list[Path]:
    """Predict every test trial by the decoder of its fold."""
    return list(run.spread("predict", _predict, list(run.subjects)))


def _predict(run: RunFolder, subject: str) -> Path:
    """Predict the test trials of one subject in coordinates of their fold's basis, unless that was done."""
    pool, average = run.pool(subject), run.settings.split.average_test
    folds_of = run.split(subject).folds
    models = [run.path("decoder", subject, number) for number in range(len(folds_of))]
    purpose = "a decoder; `neurocanvas train` makes it"
    sidecars = [artifacts.read_sidecar(check_file(model, purpose)) for model in models]
    decoders = [load_decoder(model, getattr(run.decoder, "encoder", None)) for model in models]
    for decoder in decoders:
        decoder.set_params(device=run.settings.execution.device, precision=run.settings.execution.precision)
    read, sources = made_from(run, subject, decoders[0])
    path = run.path("predictions", subject)
    hashes = [sidecar["sha256"] for sidecar in sidecars]
    inputs = artifacts.fingerprint("predict 4", hashes, [fold.fingerprint() for fold in folds_of], sources, average)
    if artifacts.is_cached(path, inputs):
        return path
    values = read_inputs(run, subject, decoders[0])
    tests = [select_inputs(values, pool, fold.test, average) for fold in folds_of]
    of_subject = np.flatnonzero(pool.column("subject") == subject)
    rows = np.searchsorted(of_subject, np.concatenate([trials for _, trials, _ in tests]))  # in the subject's table
    folds = np.repeat(np.arange(len(tests)), [len(trials) for _, trials, _ in tests])
    kinds, units = zip(*(exchangeable_units(pool, fold) for fold in folds_of), strict=True)
    units = np.concatenate([
        of_fold[np.searchsorted(fold.test, trials)]
        for of_fold, fold, (_, trials, _) in zip(units, folds_of, tests, strict=True)
    ])  # fmt: skip
    order = np.argsort(rows, kind="stable")
    # shrinkage of predictions is measured on validation trials, averaged as the test trials are
    prediction_sds = [
        decoder.outputs(select_inputs(values, pool, fold.validation, average)[0]).std(axis=0)
        for decoder, fold in zip(decoders, folds_of, strict=True)
    ]
    findings = [entry for fold in folds_of for entry in fold.findings]
    findings += [entry for sidecar in sidecars for entry in read_findings(sidecar.get("findings", []))]  # imported
    most = max(int(showings.max()) for *_, showings in tests)
    if most > 1:
        findings.append(finding("averaged-showings", most=most))
    tested, folds = np.concatenate([inputs_of for inputs_of, *_ in tests])[order], folds[order]
    coordinates = np.zeros((len(rows), max(len(decoder.basis_.target_sd) for decoder in decoders)), np.float32)
    for batch in batches(len(tested), AT_ONCE):
        for number in np.unique(folds[batch]):
            trials = np.flatnonzero(folds[batch] == number) + batch.start
            predicted = decoders[number].outputs(tested[trials])
            coordinates[trials, : predicted.shape[1]] = predicted
    seen = np.searchsorted(run.stimuli, pool.column("image"))
    artifacts.write_array(path, coordinates, inputs, {
        "encoder": sidecars[0].get("encoder", "mlp_sd"), "device": decoders[0].device_, "precision": "float32",
        "decoders": [[path.relative_to(run.folder).as_posix(), sha] for path, sha in zip(models, hashes, strict=True)],
        "known": [np.unique(seen[fold.joined().train]).tolist() for fold in folds_of],
        "trials": rows[order].tolist(), "folds": folds.tolist(), "units": units[order].tolist(),
        "exchanged": min(kinds, key=EXCHANGED.index),
        "gains": [gain(model.basis_.target_sd, sd) for model, sd in zip(decoders, prediction_sds, strict=True)],
        "blocked": bool(blocked_trials(run.subjects[subject]).any()), "findings": listed(findings),
    }, [*read, *models])  # fmt: skip
    return path


def decoders_of(run: RunFolder, subject: str) -> list[Decoder]:
    """The decoders that made a subject's predictions, one per fold."""
    path, decoders = run.path("predictions", subject), []
    for name, sha256 in artifacts.read_sidecar(path)["decoders"]:
        model = run.folder / check_name(run.folder, name, str(path))
        if artifacts.read_sidecar(check_file(model, "the decoder of these predictions"))["sha256"] != sha256:
            raise NeuroCanvasError(f"{path}: {name} was trained anew since; run `neurocanvas predict` again.")
        decoders.append(load_decoder(model, getattr(run.decoder, "encoder", None)))
    return decoders


def read_predictions(
    run: RunFolder, subject: str, rows: Any = slice(None), decoders: Sequence[Decoder] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted targets of a subject's test trials, and the mean training target of each one's fold: (n, *shape)."""
    path = run.path("predictions", subject)
    coordinates = artifacts.read_array(path, "predictions; `neurocanvas predict` makes them")
    bases = [decoder.basis_ for decoder in decoders or decoders_of(run, subject)]
    folds = np.array(artifacts.read_sidecar(path)["folds"])
    rows = np.atleast_1d(np.arange(len(folds))[rows])
    means = np.stack([basis.mean for basis in bases])[folds[rows]]
    targets = np.empty(means.shape, np.float32)
    for batch in batches(len(folds), AT_ONCE):  # fixed batches, so that no number depends on which rows are read
        wanted = np.flatnonzero((rows >= batch.start) & (rows < batch.stop))
        for number in np.unique(folds[rows[wanted]]):
            trials, basis = np.flatnonzero(folds[batch] == number) + batch.start, bases[number]
            of_trials = basis.inverse(coordinates[trials, : len(basis.target_sd)])
            of_fold = wanted[folds[rows[wanted]] == number]
            targets[of_fold] = of_trials[np.searchsorted(trials, rows[of_fold])]
    return targets, means
