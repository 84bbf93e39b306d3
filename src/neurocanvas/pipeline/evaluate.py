"""From images to scores: the verb evaluate."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.audit.variants import (
    SECOND_JUDGE,
    VARIANTS,
    Variant,
    add_up,
    as_published,
    n_way_class,
    pixels_of_pairs,
    score_similarity,
    upper_half,
)
from neurocanvas.audit.verdict import GIVEN
from neurocanvas.config import EvaluateSettings
from neurocanvas.data.splits import EXCHANGED, exchangeable_units
from neurocanvas.data.trials import ranks
from neurocanvas.decoder import Decoder
from neurocanvas.errors import NeuroCanvasError, check_file, check_option, csv_text
from neurocanvas.evaluation import feature_networks, pixels
from neurocanvas.evaluation.feature_networks import FEATURE_NETWORKS, FeatureNetwork, NotComputed, extract_features
from neurocanvas.evaluation.identification import similarity, two_way_table
from neurocanvas.evaluation.metrics import METRICS, NOT_COMPUTED
from neurocanvas.evaluation.retrieval import ASSIGNMENT_RULES, CENTRINGS, retrieve
from neurocanvas.evaluation.set_metrics import diversity, fid, inception_score, kid
from neurocanvas.evaluation.statistics import OTHERS, SIGNIFICANT, draw_cells, mean_interval
from neurocanvas.evaluation.summary import MANY_SUBJECTS, exchangeable, semantic_order, summarise
from neurocanvas.findings import Finding, finding, read_findings
from neurocanvas.generation.arms import derangement
from neurocanvas.parallel import process_cache
from neurocanvas.pipeline.generate import read_manifest
from neurocanvas.pipeline.run import RunFolder, read_pictures, write_table
from neurocanvas.pipeline.train import decoders_of, read_inputs, select_inputs
from neurocanvas.targets.captions import prompt
from neurocanvas.targets.clip import judge_texts
from neurocanvas.targets.pretrained import batches, find_family, load_picture_encoder, source_hash
from neurocanvas.training.losses import two_way_of_trials

# Images or targets in one batch.
AT_ONCE = 64

# The default variant: its networks are those of `FEATURE_NETWORKS`, and its scores have permutation tests.
DEFAULT = "mindeye"

# Least share of the seen images whose concept a judge must name: one that is mostly wrong about the originals is mostly
# wrong about copies. The bundled judge, trained on drawings, names all of these, .05 of photographs of 66 concepts, and
# .31 of photographs of 13 concepts that it has drawings of, which is better than chance but no judgement.
LEAST_ACCURACY = 0.5

# Tables of every arm from which the summary computes scores.
BASIC = ("similarity", "concept", "pixcorr", "ssim")

# Networks with up to .7 MB of features per image, too much to store: similarities to the gallery are cached instead.
WIDE = ("alexnet2", "alexnet5")

# Score of every trial and image that could have been the true one; of every trial; or of the set of images.
Score = np.ndarray | dict[str, Any]

# Name of a network ("": pixels), the network, and its metrics.
Unit = tuple[str, FeatureNetwork | None, list[str]]


@dataclass(frozen=True)
class ImagePairs:
    """Files of every arm's images, one per trial, and of the gallery; and the trials."""

    generated: Mapping[str, np.ndarray]
    gallery: np.ndarray
    seen_rows: np.ndarray  # row in the gallery of each trial's seen image
    size: tuple[int, int] | None = None  # for the comparison; None: as the images are
    trials: dict[str, np.ndarray] = field(default_factory=dict)
    blocked: bool = False
    exchanged: str = "trials"
    cross_validated: bool = False  # whether tested trials of one fold train another
    names: Sequence[str] = ()  # of the gallery
    concepts: Mapping[str, str] = field(default_factory=dict)
    findings: Sequence[Finding] = ()

    @cached_property
    def hashes(self) -> dict[Path, str]:
        """Hash of each image's file and of the size."""
        return {
            path: artifacts.fingerprint(check_file(path, "an image; make it again").read_bytes(), self.size)
            for path in dict.fromkeys(np.concatenate([self.gallery, *self.generated.values()]).tolist())
        }


def cached(
    run: RunFolder, name: str, cache_key: str, keys: Sequence[str], compute: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """One row per key: stored by the last evaluation, or from `compute`, which gets the positions of the missing ones.
    `cache_key` is the hash of the metric and its settings."""
    path = run.folder / "scores" / "per_image" / f"{name}.npy"
    first = {key: position for position, key in reversed(list(enumerate(keys)))}
    rows: dict[str, np.ndarray] = {}
    if artifacts.is_cached(path, cache_key):
        array = artifacts.read_array(path, "scores of an earlier evaluation")
        rows = dict(zip(artifacts.read_sidecar(path)["keys"], array, strict=True))
    n_stored, missing = len(rows), sorted(position for key, position in first.items() if key not in rows)
    if missing:
        rows |= zip((keys[position] for position in missing), compute(np.array(missing)), strict=True)
    if missing or n_stored > len(first):
        stored = np.stack([rows[key] for key in sorted(first)])
        artifacts.write_array(path, stored, cache_key, {"keys": sorted(first)})
    return np.stack([rows[key] for key in keys])


def compare(
    run: RunFolder, pairs: ImagePairs, prompts: Sequence[str], partners: np.ndarray
) -> tuple[dict[str, dict[str, dict[str, Any]]], np.ndarray | None, dict[str, str], dict[str, Any]]:
    """Compare every arm's images with the seen ones: by the judge, by pixels, and by the networks available."""
    # Returns scores as "tables", "values" or "sets" -> arm -> metric; the judge's embeddings of the prompts; and the
    # metrics that are not computed, with the reason; and what the test of the judge gave.
    settings, not_computed = run.settings.evaluate, dict[str, str]()
    judge_key = artifacts.fingerprint("judge", source_hash(find_family(settings.judge).judge))
    paths = np.concatenate([pairs.gallery, *pairs.generated.values()])

    def embed(missing: np.ndarray) -> np.ndarray:
        units = [(paths[missing[batch]], pairs.size) for batch in batches(len(missing), AT_ONCE)]
        embeddings = run.spread("evaluate", _judge, units, title="judge", sizes=[len(batch) for batch, _ in units])
        return np.concatenate(list(embeddings))

    embedded = cached(run, "judge", judge_key, [pairs.hashes[path] for path in paths], embed)
    seen, *generated = np.split(embedded, np.cumsum([len(pairs.gallery), *map(len, pairs.generated.values())])[:-1])
    parts = ("tables", "values", "sets")
    scores: dict[str, dict[str, dict[str, Any]]] = {part: {arm: {} for arm in pairs.generated} for part in parts}
    prompted = None
    if prompts:
        texts = cached(
            run, "judge-texts", judge_key, prompts,
            lambda missing: judge_texts([prompts[row] for row in missing], settings.judge),
        )  # fmt: skip
        prompted = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    judge = _check_judge(seen, prompted, pairs, settings)
    for (arm, tables), rows in zip(scores["tables"].items(), generated, strict=True):
        in_cells = _pixels_in_cells(run, pairs, arm, partners)
        if judge["used"]:
            tables["similarity"] = similarity(rows, seen)
        if judge["used"] and prompted is not None:
            tables["concept"] = rows / np.linalg.norm(rows, axis=1, keepdims=True) @ prompted.T
        tables |= {"pixcorr": in_cells[..., 0], "ssim": in_cells[..., 1]}
    for measured, missing in run.spread("evaluate", partial(_measure, pairs), _units(settings), title="networks"):
        not_computed |= missing
        for metric, by_arm in measured.items():
            for arm, score in by_arm.items():
                part = "sets" if isinstance(score, dict) else "tables" if score.ndim == 2 else "values"
                scores[part][arm][metric] = score
    return scores, prompted if judge["used"] else None, not_computed, judge


def _check_judge(
    seen: np.ndarray, prompted: np.ndarray | None, pairs: ImagePairs, settings: EvaluateSettings
) -> dict[str, Any]:
    """Test whether the judge names the seen images' own concepts better than chance, and at least half of them."""
    from scipy.stats import binomtest

    judge: dict[str, Any] = {"name": settings.judge, "used": True, "findings": []}
    shown, first = np.unique(pairs.seen_rows, return_index=True)
    true = np.searchsorted(list(pairs.concepts), pairs.trials["concept"][first]) if pairs.concepts else first
    # concepts of one English name have one prompt, and are one concept to the judge
    label = np.arange(len(set(true))) if prompted is None else np.unique(prompted, axis=0, return_inverse=True)[1]
    label = label.reshape(-1)
    true = true if prompted is None else label[true]
    chance, n = float(np.bincount(true).max()) / len(true), len(true)  # of one answer for all
    if prompted is None or chance**n > SIGNIFICANT:  # not even a perfect judge could pass
        return judge | {"findings": [finding("judge-unchecked", judge=settings.judge)]}
    right = int((label[(seen[shown] @ prompted.T).argmax(axis=1)] == true).sum())
    p = float(binomtest(right, n, chance, alternative="greater").pvalue)
    numbers = {"accuracy": right / n, "chance": chance, "p": p, "n": n, "least": LEAST_ACCURACY}
    poor = p > SIGNIFICANT or right / n < LEAST_ACCURACY
    code = "judge-poor" if settings.judge_anyway else "judge-left-out"
    found = [finding(code, judge=settings.judge, **numbers)] if poor else []
    return judge | numbers | {"used": settings.judge_anyway or not poor, "findings": found}


def _units(settings: EvaluateSettings) -> list[Unit]:
    """The metrics beyond the judge and PixCorr and SSIM in cells, by network."""
    variant, units = VARIANTS[settings.variant], list[Unit]()
    if variant.pixels is not None:
        units.append(("", None, [f"{metric}@{settings.variant}" for metric in ("pixcorr", "ssim")]))
    if settings.variant == DEFAULT:
        by_network: dict[str, list[str]] = {}
        computed = [metric for metric, row in METRICS.items() if row.kind]
        for metric in dict.fromkeys([*(settings.metrics or computed), SECOND_JUDGE]):
            networks = METRICS[check_option("evaluate.metrics", metric, computed)].networks
            by_network.setdefault(networks[0] if networks else "", []).append(metric)
        return units + [(name, FEATURE_NETWORKS.get(name), metrics) for name, metrics in by_network.items()]
    if settings.metrics:
        raise NeuroCanvasError(
            f"--metrics: says which networks the variant {DEFAULT} asks; {settings.variant} has its own. Leave one out."
        )
    units += [(metric, network, [f"{metric}@{settings.variant}"]) for metric, network in variant.networks.items()]
    judged = SECOND_JUDGE if not variant.two_way else f"{SECOND_JUDGE}@{settings.variant}"
    return [*units, (SECOND_JUDGE, FEATURE_NETWORKS[SECOND_JUDGE], [judged])]


def _judge(run: RunFolder, unit: tuple[np.ndarray, tuple[int, int] | None]) -> np.ndarray:
    """The judge's embeddings of some images."""
    judge = find_family(run.settings.evaluate.judge).judge
    encode, _ = process_cache("evaluate", "judge", judge, lambda: load_picture_encoder(judge))
    return encode(list(read_pictures(*unit)))


def _pixels_in_cells(run: RunFolder, pairs: ImagePairs, arm: str, partners: np.ndarray) -> np.ndarray:
    """PixCorr and SSIM of an arm's images with the seen images of their cells, (n_trials, width, 2)."""
    generated, seen = pairs.generated[arm], pairs.gallery[pairs.seen_rows]
    members, group = np.unique(partners, axis=0, return_inverse=True)  # one group per cell and position in a block
    group = group.reshape(-1)
    seen_by_group = [seen[trials[trials >= 0]] for trials in members]
    group_hashes = [artifacts.fingerprint([pairs.hashes[path] for path in paths]) for paths in seen_by_group]

    def measure(missing: np.ndarray) -> np.ndarray:
        by_group = [missing[group[missing] == number] for number in np.unique(group[missing])]
        units = [(generated[rows], seen_by_group[group[rows[0]]], pairs.size) for rows in by_group]
        scores = np.full((len(group), OTHERS + 1, 2), np.nan)  # as wide as any cell, so that rows are stored together
        sizes = [len(rows) for rows in by_group]
        tables = run.spread("evaluate", _pixel_table, units, title=f"pixels {arm}", sizes=sizes)
        for rows, table in zip(by_group, tables, strict=True):
            scores[rows, : table.shape[1]] = table
        return scores[missing]

    keys = [f"{pairs.hashes[path]}-{group_hashes[number]}" for path, number in zip(generated, group, strict=True)]
    rows = cached(run, f"pixels-{arm}", artifacts.fingerprint("pixels in cells"), keys, measure)
    return rows[:, : partners.shape[1]]


def _pixel_table(_: RunFolder, unit: tuple[np.ndarray, np.ndarray, tuple[int, int] | None]) -> np.ndarray:
    """PixCorr and SSIM of a few generated with a few seen images, (n_generated, n_seen, 2)."""
    generated, seen = (read_pictures(paths, unit[2]) / 255 for paths in unit[:2])
    return np.stack([pixels.pixcorr(generated, seen, table=True), pixels.ssim(generated, seen, table=True)], axis=-1)


@dataclass
class Network:
    """One network's features of images, cached; it is loaded when some are missing."""

    run: RunFolder
    pairs: ImagePairs
    name: str
    network: FeatureNetwork
    download: bool
    variant: Variant | None

    def __post_init__(self) -> None:
        self.cache_key = artifacts.fingerprint(
            "features", repr(self.network), source_hash(self.run.settings.evaluate.weights)
        )
        changes = "" if self.variant is None else (self.variant.jpeg, self.variant.generated_resize)
        self.generated_key = artifacts.fingerprint(self.cache_key, repr(changes))

    @cached_property
    def loaded(self) -> tuple[Callable[..., Any], feature_networks.Forward]:
        """From files of images (generated ones as a variant changes them) to network input, and on to its layers."""
        folder, download = self.run.settings.evaluate.weights, self.download and os.environ.get("HF_HUB_OFFLINE") != "1"
        if folder and self.network.library == "transformers":
            folder = str(Path(folder) / self.network.source.rsplit("/", 1)[-1])
        prepare, forward = feature_networks.load_network(self.network, folder=folder, download=download)

        def read(paths: np.ndarray, variant: Variant | None = None) -> Any:
            images = read_pictures(paths, self.pairs.size)
            return prepare(images if variant is None else as_published(images, variant))

        return read, forward

    def features(self, arm: str = "") -> np.ndarray:
        """Features of an arm's images, or of the gallery."""
        paths, key = (self.pairs.generated[arm], self.generated_key) if arm else (self.pairs.gallery, self.cache_key)
        return cached(
            self.run, f"{self.name}-{arm or 'seen'}", key, [self.pairs.hashes[path] for path in paths],
            lambda rows: extract_features(
                paths[rows], partial(self.loaded[0], variant=self.variant if arm else None), self.loaded[1]
            ),
        )  # fmt: skip

    def similarity(self, arm: str) -> np.ndarray:
        """Correlation of the features of every image of an arm with those of every seen image."""
        if self.name.partition("@")[0] not in WIDE:
            return similarity(self.features(arm), self.features())
        paths, hashes = self.pairs.generated[arm], self.pairs.hashes

        def compare_parts(rows: np.ndarray) -> np.ndarray:
            read, forward = self.loaded
            read_changed = partial(read, variant=self.variant)
            seen = extract_features(self.pairs.gallery, read, forward)
            parts = [paths[rows[batch]] for batch in batches(len(rows), AT_ONCE)]
            return np.concatenate([similarity(extract_features(part, read_changed, forward), seen) for part in parts])

        key = artifacts.fingerprint(self.generated_key, [hashes[path] for path in self.pairs.gallery])
        return cached(self.run, f"{self.name}-{arm}", key, [hashes[path] for path in paths], compare_parts)


def _measure(pairs: ImagePairs, run: RunFolder, unit: Unit) -> tuple[dict[str, dict[str, Score]], dict[str, str]]:
    """All metrics of one network, or of pixels, of every arm; and the reasons for those that are not computed."""
    name, feature_network, metrics = unit
    settings, network = run.settings.evaluate, None
    if feature_network is not None:
        variant = VARIANTS[settings.variant] if any("@" in metric for metric in metrics) else None
        name = name if variant is None else f"{name}@{settings.variant}"
        download = any(metric in settings.metrics for metric in metrics)
        network = Network(run, pairs, name, feature_network, download, variant)
    scores, not_computed = dict[str, dict[str, Score]](), dict[str, str]()
    for metric in metrics:
        try:
            scores[metric] = {arm: _score(pairs, run, network, metric, arm) for arm in pairs.generated}
        except NotComputed as error:
            not_computed[metric.partition("@")[0]] = str(error)
    return scores, not_computed


def _score(pairs: ImagePairs, run: RunFolder, network: Network | None, metric: str, arm: str) -> Score:
    """A metric of an arm's images, by a network's features or by pixels."""
    name, _, variant = metric.partition("@")
    generated, seen, row = pairs.generated[arm], pairs.gallery[pairs.seen_rows], VARIANTS.get(variant)
    kind = "" if variant else METRICS[name].kind
    keys = [f"{pairs.hashes[path]}-{pairs.hashes[other]}" for path, other in zip(generated, seen, strict=True)]
    if network is None and row is not None:  # PixCorr and SSIM of true pairs
        how = (row.pixels, row.ssim, row.clamped, row.jpeg, row.generated_resize)
        scores = cached(
            run, f"pixels@{variant}-{arm}", artifacts.fingerprint("pixels of pairs", repr(how)), keys,
            lambda missing: np.concatenate([
                pixels_of_pairs(
                    read_pictures(generated[missing[batch]], pairs.size),
                    read_pictures(seen[missing[batch]], pairs.size), variant,
                )
                for batch in batches(len(missing), AT_ONCE)
            ]),
        )  # fmt: skip
        if name == "pixcorr" and row.divisor:
            return add_up(scores[:, 0], row.divisor)
        return scores[:, 0 if name == "pixcorr" else 1]
    if network is None:
        function = METRICS[name].function
        if function is None:
            raise TypeError(f"METRICS[{name!r}] has neither a network nor a function.")
        images = ((read_pictures([path], pairs.size)[0] for path in paths) for paths in (generated, seen))
        return np.array([function(*pair) for pair in zip(*images, strict=True)])
    if kind in ("two-way", "distance"):  # for every image that could have been the true one
        table = network.similarity(arm)
        return two_way_table(table) if kind == "two-way" else 1 - table
    if kind == "lpips":
        return cached(
            run, f"lpips-{arm}", network.cache_key, keys,
            lambda rows: feature_networks.lpips(generated[rows], seen[rows], *network.loaded),
        )  # fmt: skip
    if kind == "n-way" or (row is not None and row.n_way):
        features = network.features(arm), network.features()[pairs.seen_rows]
        return n_way_class(*features, variant) if variant else n_way_class(*features)
    if variant:
        return score_similarity(network.similarity(arm)[:, pairs.seen_rows], name, variant)
    if metric == "inception-score":  # metrics of sets; seen images count as often as they were shown
        return inception_score(network.features(arm))
    features = network.features(arm), network.features()[pairs.seen_rows]
    return kid(*features, seed=run.settings.evaluate.seed) if metric == "kid" else fid(*features)


# Smallest gallery for which top-5 accuracy means something.
FEWEST_IMAGES = 6

# How importance is measured -> title and meaning; the first as in [Breiman2001].
IMPORTANCE = {
    "permutation": ("Permuted", "its values exchanged between test trials"),
    "occlusion": ("Occluded", "its values replaced by the training mean"),
}

# Name -> scores of one fold or of all.
Scores = dict[str, dict[str, Any]]


def explain(run: RunFolder) -> tuple[list[Path], dict[str, Scores]]:
    """Retrieval, diversity and feature importance of predictions whose decoders and features are still there."""
    rng, n_trials = np.random.default_rng(run.settings.evaluate.seed), 0
    retrieved, diverse = list[Scores](), list[Scores]()
    subjects, exchanged, lost = list[np.ndarray](), list[np.ndarray](), dict[tuple[str, str, str], list[np.ndarray]]()
    for subject in run.subjects:
        path, pool = run.path("predictions", subject), run.pool(subject)
        try:
            made_from = artifacts.read_sidecar(path)["made_from"]
            current = all(
                artifacts.read_sidecar(path.parent / name)["fingerprint"] == key for name, key in made_from.items()
            )
            decoders = decoders_of(run, subject) if current else []
        except (NeuroCanvasError, KeyError):
            continue
        if not decoders:
            continue
        values, shown = read_inputs(run, subject, decoders[0]), np.searchsorted(run.stimuli, pool.column("image"))
        for decoder, split in zip(decoders, run.split(subject).folds, strict=True):
            decoder.set_params(device=run.settings.execution.device)
            features, rows, _ = select_inputs(values, pool, split.test, run.settings.split.average_test)
            of_test, true = np.unique(shown[rows], return_inverse=True)
            targets = run.targets()[of_test]
            if len(of_test) < 2 or decoder.space_.shape != targets.shape[1:]:
                continue
            concepts = np.array([run.images.concepts[run.stimuli[row]] for row in of_test])
            predicted = decoder.outputs(np.asarray(features))
            retrieved.append(_retrieve(decoder, decoder.network_outputs(features), targets, true, concepts))
            coordinates = decoder.basis_.transform(targets)
            diverse.append({
                name: {"n_trials": len(true), **diversity(outputs)}
                for name, outputs in (("predictions", predicted), ("targets", coordinates[true]))
            })  # fmt: skip
            training_mean = values[split.joined().train].mean(axis=0)
            for group, drops in _importance(decoder, np.asarray(features), training_mean, targets, true, rng).items():
                lost.setdefault(group, []).append(drops)
            subjects.append(np.full(len(true), subject))
            units = np.unique(exchangeable_units(pool, split)[1], return_inverse=True)[1]
            exchanged.append(n_trials + units[np.searchsorted(split.test, rows)])
            n_trials += len(rows)
    scores = {"retrieval": _over_folds(retrieved), "diversity": _over_folds(diverse)}
    if not subjects:
        return [], scores
    strata, units = ranks(np.concatenate(subjects)), np.concatenate(exchanged)
    if len(np.unique(strata)) >= MANY_SUBJECTS:
        units, strata = strata, np.zeros_like(strata)
    lines: list[Sequence[Any]] = [("kind", "group", "name", "drop", "low", "high")]
    for group, drops_of_folds in lost.items():
        drops = np.concatenate(drops_of_folds)
        interval = mean_interval(drops, units, strata=strata, rng=np.random.default_rng(0))
        lines.append((*group, float(drops.mean()), *(interval or (np.nan, np.nan))))
    path = run.folder / "scores" / "importance.csv"
    artifacts.write_text(path, csv_text(lines))
    return [path], scores


def _over_folds(folds: Sequence[Scores]) -> Scores:
    """Numbers of trials are added up, other numbers averaged by trials, texts and booleans left as they are."""
    merged: Scores = {}
    for name in dict.fromkeys(name for fold in folds for name in fold):
        rows = [fold[name] for fold in folds if name in fold]
        merged[name] = dict(rows[0])
        for key, value in rows[0].items():
            if not isinstance(value, str | bool):
                values, weights = zip(*((row[key], row["n_trials"]) for row in rows if key in row), strict=True)
                merged[name][key] = sum(values) if key == "n_trials" else float(np.average(values, weights=weights))
    return merged


def _retrieve(
    decoder: Decoder, predicted: np.ndarray, targets: np.ndarray, true: np.ndarray, concepts: np.ndarray
) -> Scores:
    """Retrieval of one fold's targets, under every rule that applies."""
    # A prediction, around the mean training target, is a weighted sum of a few axes, so its products with a target are
    # the same sum of the target's products with these: exact, and no prediction is ever expanded.
    basis, weights = decoder.basis_, predicted.astype(np.float64)
    summands = (basis.axes / basis.scale).astype(np.float64)
    flat = targets.reshape(len(targets), -1)
    scores: Scores = {}
    if len(targets) < FEWEST_IMAGES or not np.ptp(predicted, axis=0).any():
        return scores
    for centring, transductive in CENTRINGS.items():
        centred, shift = weights, basis.mean.reshape(-1).astype(np.float64)
        if transductive:
            centred, shift = weights - weights.mean(axis=0), flat.mean(axis=0, dtype=np.float64)
        products, squared = np.empty((len(flat), len(summands))), np.empty(len(flat))
        for batch in batches(len(flat), AT_ONCE):
            shifted = flat[batch] - shift
            products[batch], squared[batch] = shifted @ summands.T, np.einsum("nd,nd->n", shifted, shifted)
        lengths = np.einsum("nk,kl,nl->n", centred, summands @ summands.T, centred, optimize=True)
        with np.errstate(divide="ignore", invalid="ignore"):  # cosines in the whole target space
            cosines = np.asarray(centred @ products.T / np.sqrt(lengths)[:, None] / np.sqrt(squared))
        if not np.isfinite(cosines).all():  # all targets are equal, and nothing is left of them around their mean
            continue
        for rule, (together, _) in ASSIGNMENT_RULES.items():
            if rule == "hungarian" and len(true) > len(targets):
                continue  # several trials of one image cannot each have an image of their own
            scores[f"centred {rule}" if transductive else rule] = {
                "transductive": transductive or together, "rule": rule, "centring": centring,
                "space": f"{decoder.space_.name} targets, {' x '.join(map(str, targets.shape[1:]))}",
                "n_trials": len(true), "n_pictures": len(targets),
                **retrieve(cosines, true, concepts[true], concepts, rule=rule),
            }  # fmt: skip
    return scores


def _importance(
    decoder: Decoder,
    features: np.ndarray,
    training_mean: np.ndarray,
    targets: np.ndarray,
    true: np.ndarray,
    rng: np.random.Generator,
) -> dict[tuple[str, str, str], np.ndarray]:
    """Loss of each test trial's two-way score without each electrode and band; none for encoders of the signal."""
    spec, every = decoder.input_spec, slice(None)
    if not spec.bands:
        return {}
    groups: dict[tuple[str, str], tuple[int | slice, int | slice]] = {
        **{("electrode", name): (row, every) for row, name in enumerate(spec.ch_names)},
        **{("band", name): (every, row) for row, name in enumerate(spec.bands)},
    }
    # two-way identification in coordinates, but with the whole length of targets, so it is exact
    coordinates, distance = decoder.basis_.transform(targets), decoder.basis_.squared_distance(targets)
    lost = importance(
        lambda changed: two_way_of_trials(decoder.network_outputs(changed), coordinates[true], distance[true], true),
        features, groups, training_mean, rng=rng,
    )  # fmt: skip
    return {(kind, *group): lost[kind][group] for kind in IMPORTANCE for group in groups}


def importance(
    score: Callable[[np.ndarray], np.ndarray],
    features: np.ndarray,
    groups: Mapping[Any, tuple[int | slice, int | slice]],
    training_mean: np.ndarray,
    *,
    rng: np.random.Generator,
) -> dict[str, dict[Any, np.ndarray]]:
    """Loss of each trial's score, (n_trials,), without a group of features (n_trials, n_chans, n_bands)."""
    # Groups that carry the same information hide one another: neither is missed while the other is there. Below 0, a
    # group misleads.
    intact, orders = score(features), [rng.permutation(len(features)) for _ in range(5)]
    lost: dict[str, dict[Any, np.ndarray]] = {kind: {} for kind in IMPORTANCE}
    for name, columns in groups.items():
        scores, changed = [], features.copy()
        for values in (*(features[order][:, *columns] for order in orders), training_mean[*columns]):
            changed[:, *columns] = values
            scores.append(score(changed))
        lost["permutation"][name] = intact - np.mean(scores[:-1], axis=0)
        lost["occlusion"][name] = intact - scores[-1]
    return lost


def evaluate(run: RunFolder) -> list[Path]:
    """Score every arm's images against the seen ones: the run's own, or a folder against another one."""
    settings, folder = run.settings.evaluate, run.folder / "scores"
    pairs = _read_elsewhere(run) if settings.against else _read_images(run)
    trials, concepts = pairs.trials, pairs.concepts
    strata, units = exchangeable(trials)
    # no other random stream has the seed of the cells
    cells = draw_cells(strata, units, rng=np.random.default_rng([settings.seed, 1]))
    alike = []
    for arm, files in pairs.generated.items():
        _, copies = np.unique([pairs.hashes[file] for file in files], return_counts=True)
        if arm in ("eeg", GIVEN) and (n := int(copies[copies > 1].sum())):
            alike.append(finding("identical-images", arm=arm, n=n, of=len(files)))
    prompts = [prompt(name) for name in concepts.values()]
    compared, prompted, not_computed, judge = compare(run, pairs, prompts, cells[1])
    tables, sets, variant = compared["tables"], compared["sets"], settings.variant
    true = np.searchsorted(list(concepts), trials["concept"]) if concepts else np.empty(0, np.int64)
    if VARIANTS[variant].upper_half and not concepts:
        not_computed["upper_half"] = "the concepts are not known"
    elif VARIANTS[variant].upper_half and judge["used"]:
        for arm, of_arm in tables.items():
            compared["values"][arm][f"upper_half@{variant}"] = upper_half(of_arm["concept"], true, variant)
    summary, rows = summarise(
        tables, trials, pairs.names, concepts, settings, exchanged=pairs.exchanged,
        cross_validated=pairs.cross_validated, cells=cells, rng=np.random.default_rng(settings.seed),
        findings=[*pairs.findings, *alike, *judge.pop("findings"), *[finding("blocked-design")] * pairs.blocked],
        values=compared["values"],
    )  # fmt: skip
    paths, explained = ([], {}) if settings.against else explain(run)
    for arm, name in (("eeg", "predictions"), ("oracle", "targets")):
        scores = explained["diversity"].get(name, {}) if explained and arm in sets else {}
        for score in [name for name in ("effective_rank", "mean_cosine") if name in scores]:
            sets[arm][score] = {"value": scores[score], "n_generated": scores["n_trials"]}
    metrics = {}
    measured = {metric for part in compared.values() for arm in part.values() for metric in arm}
    for metric in sorted(measured | not_computed.keys()):
        name, _, suffix = metric.partition("@")
        if name in METRICS and metric not in BASIC:
            row = METRICS[name]
            metrics[metric] = {
                "title": f"{row.title} ({suffix})" if suffix else row.title, "direction": row.better,
                "chance": NOT_COMPUTED if suffix and not isinstance(row.chance, float) else str(row.chance),
                "unit": row.unit, "reference": row.reference, "variant": suffix,
            }  # fmt: skip
    summary |= {"judge": judge, "sets": sets, "not_computed": not_computed, "metrics": metrics}
    summary |= {"retrieval": explained["retrieval"]} if explained else {}
    paths = [*_write_scores(folder, summary, rows, tables, prompted, pairs, true), *paths]
    # tables of an earlier evaluation, which are written only where concepts or decoders are known
    for name in ("concepts.csv", "confusion.csv", "concept_order.csv", "importance.csv"):
        if folder / name not in paths:
            (folder / name).unlink(missing_ok=True)
    return paths


def _read_images(run: RunFolder) -> ImagePairs:
    """Find the run's own images, and read the columns of their trials."""
    import pandas as pd

    images, trial_names = run.folder / "images", ["subject", "trial"]
    entries = pd.DataFrame(read_manifest(run, images / "manifest.jsonl"), dtype=object)
    entries = entries.drop_duplicates(["arm", *trial_names], keep="last")
    arms = entries["arm"].unique().tolist()
    complete = entries.groupby(trial_names)["arm"].transform("nunique") == len(arms)
    # arms that were drawn by several commands may list the subjects in different orders
    first = entries[complete & (entries["arm"] == arms[0])]
    if first.empty:
        raise NeuroCanvasError(f"{images}: no trial has images of all arms ({', '.join(arms)}); generate them all.")
    if not complete.all():
        n_trials = entries.groupby(trial_names).ngroups
        n_left_out = n_trials - len(first)
        run.warn("evaluate", f"{n_left_out} of {n_trials} trials lack images of some arm and are left out")
    files = entries.set_index(["arm", *trial_names])["file"].to_dict()
    pairs = list(zip(first["subject"], first["trial"], strict=True))
    gallery, names = sorted(set(first["stimulus"])), run.images.names
    trials = {name: np.array(first[name].tolist()) for name in (*trial_names, "stimulus", "concept")}
    sidecars = {subject: artifacts.read_sidecar(run.path("predictions", subject)) for subject in dict(pairs)}
    tested = {
        (subject, trial): (0 if sidecar["exchanged"] == "blocks" else fold, unit)
        for subject, sidecar in sidecars.items()
        for trial, fold, unit in zip(sidecar["trials"], sidecar["folds"], sidecar["units"], strict=True)
    }
    trials["block"] = np.array([run.subjects[subject].column("block")[trial] for subject, trial in pairs])
    trials["fold"], trials["unit"] = np.array([tested[pair] for pair in pairs]).T
    return ImagePairs(
        {arm: np.array([images / files[arm, subject, trial] for subject, trial in pairs]) for arm in arms},
        np.array([images / "seen" / f"{stimulus}.png" for stimulus in gallery]),
        np.searchsorted(gallery, trials["stimulus"]),
        trials=trials,
        blocked=any(sidecar["blocked"] for sidecar in sidecars.values()),
        cross_validated=run.settings.split.protocol == "leave-subject-out"
        or any(len({*sidecar["folds"]}) > 1 for sidecar in sidecars.values()),
        exchanged=min((sidecar["exchanged"] for sidecar in sidecars.values()), key=EXCHANGED.index),
        names=gallery,
        concepts={concept: names[concept] for concept in sorted(set(first["concept"]))},
        findings=[finding for sidecar in sidecars.values() for finding in read_findings(sidecar["findings"])],
    )


def _read_elsewhere(run: RunFolder) -> ImagePairs:
    """Find the images of a folder, and the seen ones in another folder."""
    from neurocanvas.audit.external import choose_size, concept_name, presentations_of, read_pairing

    settings = run.settings.evaluate
    if (run.folder / "predictions").is_dir():
        raise NeuroCanvasError(f"{run.folder}: is a run with images of its own; name another folder by -o.")
    if not run.settings.data.pictures:
        raise NeuroCanvasError("--images: the folder of images that were made is needed beside --against.")
    table = Path(settings.pairs) if settings.pairs else None
    pairing = read_pairing(Path(run.settings.data.pictures), Path(settings.against), table)
    size, notes = choose_size(pairing)
    common = os.path.commonpath([path.parent for path in pairing.gallery])
    names = [path.relative_to(common).as_posix() for path in pairing.gallery]
    shown, n = np.array(names)[pairing.seen], len(pairing.images)
    columns, blocked = presentations_of(table, pairing.columns, shown)
    trials = {
        "subject": np.asarray(pairing.columns.get("subject", np.full(n, "0"))), "trial": np.arange(n),
        "stimulus": shown, "concept": np.asarray(pairing.columns.get("concept", np.full(n, ""))),
        "fold": np.zeros(n, np.int64), "block": columns["block"],
        "unit": columns["block"] if blocked else ranks(shown),
    }  # fmt: skip
    repeated = len({*zip(trials["subject"], shown, strict=True)}) < n
    if (n_trials := len(np.unique(columns["trial"]))) < n:  # several samples of one trial
        notes = (*notes, finding("rows-of-trials", rows=n, trials=n_trials))
    arms, rng = {GIVEN: np.array([path.absolute() for path in pairing.images])}, np.random.default_rng(settings.seed)
    by_subject = [np.flatnonzero(trials["subject"] == subject) for subject in np.unique(trials["subject"])]
    if min(map(len, by_subject)) > 1:  # as the floor, every trial gets another image of its subject
        arms["shuffled"] = arms[GIVEN].copy()
        for rows in by_subject:
            arms["shuffled"][rows] = arms[GIVEN][rows[derangement(trials["stimulus"][rows], rng=rng)]]
    return ImagePairs(
        arms, np.array([path.absolute() for path in pairing.gallery]), np.asarray(pairing.seen), size, trials, blocked,
        "blocks" if blocked else "images" if repeated else "trials", False, names,
        {name: concept_name(name, str(table)) for name in np.unique(trials["concept"]).tolist() if name},
        [*pairing.findings, *notes],
    )  # fmt: skip


def _write_scores(
    folder: Path,
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    tables: Mapping[str, Mapping[str, np.ndarray]],
    prompted: np.ndarray | None,
    pairs: ImagePairs,
    true: np.ndarray,
) -> list[Path]:
    """Write the scores, the judge's confusion matrix of concepts, and two orders of concepts."""
    from sklearn.metrics import confusion_matrix

    per_concept = [
        {"concept": concept, "name": scores["name"], "n": scores["n"], "arm": arm, **scores[arm]}
        for concept, scores in summary["concepts"].items() for arm in summary["arms"]
    ]  # fmt: skip
    paths = [folder / "summary.json"]
    artifacts.write_json(paths[0], summary)
    for name, table in (("trials.csv", rows), ("concepts.csv", per_concept)):
        if table:
            paths.append(folder / name)
            artifacts.write_text(paths[-1], csv_text([list(table[0]), *(list(row.values()) for row in table)]))
    if prompted is None:
        return paths
    ids, cells = list(pairs.concepts), list[Sequence[Any]]([("arm", "true", "named", "count")])
    for arm, of_arm in tables.items():
        counts = confusion_matrix(true, of_arm["concept"].argmax(axis=1), labels=np.arange(len(ids)))
        cells += [(arm, ids[row], ids[column], int(counts[row, column])) for row, column in np.argwhere(counts)]
    artifacts.write_text(folder / "confusion.csv", csv_text(cells))
    first = [int(pairs.trials["block"][true == row].min()) for row in range(len(ids))]
    write_table(folder / "concept_order.csv", {
        "concept": np.array(ids), "name": np.array(list(pairs.concepts.values())),
        "semantic": semantic_order(prompted),
        "block": np.argsort(np.argsort(first, kind="stable")) if pairs.blocked else np.full(len(ids), ""),
    })  # fmt: skip
    return [*paths, folder / "confusion.csv", folder / "concept_order.csv"]
