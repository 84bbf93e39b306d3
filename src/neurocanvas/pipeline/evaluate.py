"""From images to scores: the verb evaluate."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
from neurocanvas.data.splits import blocked_trials
from neurocanvas.data.trials import ranks, without_signal
from neurocanvas.decoder import Decoder
from neurocanvas.errors import NeuroCanvasError, check_file, check_option, csv_text
from neurocanvas.evaluation import feature_networks, pixels
from neurocanvas.evaluation.feature_networks import FEATURE_NETWORKS, FeatureNetwork, NotComputed, extract_features
from neurocanvas.evaluation.identification import similarity, two_way_table
from neurocanvas.evaluation.metrics import METRICS, NOT_COMPUTED
from neurocanvas.evaluation.retrieval import ASSIGNMENT_RULES, CENTRINGS, retrieve
from neurocanvas.evaluation.set_metrics import diversity, fid, inception_score, kid
from neurocanvas.evaluation.statistics import OTHERS, bootstrap_interval, draw_cells
from neurocanvas.evaluation.summary import MANY_SUBJECTS, exchangeable, semantic_order, summarise
from neurocanvas.findings import Finding, read_findings
from neurocanvas.generation.arms import derangement
from neurocanvas.parallel import process_cache
from neurocanvas.pipeline.generate import read_manifest
from neurocanvas.pipeline.run import RunFolder, read_pictures, write_table
from neurocanvas.pipeline.train import decoders_of, read_inputs, select_inputs
from neurocanvas.targets.captions import prompt
from neurocanvas.targets.clip import judge_texts
from neurocanvas.targets.pretrained import batches, find_family, load_picture_encoder, source_hash
from neurocanvas.training.losses import two_way_of_trials

if TYPE_CHECKING:
    from neurocanvas.audit.external import Pairing

# Images or targets in one batch.
AT_ONCE = 64

# The default variant: its networks are those of `FEATURE_NETWORKS`, and its scores have permutation tests.
DEFAULT = "mindeye"

# Tables of every arm from which the summary computes scores.
BASIC = ("similarity", "concept", "pixcorr", "ssim")

# Networks with up to .7 MB of features per image, too much to store: similarities to the gallery are cached instead.
WIDE = ("alexnet2", "alexnet5")


@dataclass(frozen=True)
class ImagePairs:
    """What is compared: files of every arm's images and of the gallery, and the row in the gallery of each trial."""

    drawn: Mapping[str, np.ndarray]
    seen: np.ndarray
    shown: np.ndarray
    size: tuple[int, int] | None  # at which images are compared; None: as they are
    keys: Mapping[Path, str]  # hash of each image's file and of the size


def cached(
    run: RunFolder, name: str, made_by: str, keys: Sequence[str], compute: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """One row per key: stored by the last evaluation, or from `compute`, which gets the positions of the missing ones.
    `made_by` is the fingerprint of the metric and its settings."""
    path = run.folder / "scores" / "per_image" / f"{name}.npy"
    wanted, first, own = np.unique(np.asarray(keys), return_index=True, return_inverse=True)
    stored: dict[str, int] = {}
    if artifacts.is_cached(path, made_by):
        stored = {key: row for row, key in enumerate(artifacts.read_sidecar(path)["keys"])}
    missing = np.sort([position for key, position in zip(wanted.tolist(), first, strict=True) if key not in stored])
    fresh = compute(missing) if len(missing) else np.empty(0)
    old = artifacts.read_array(path, "what earlier evaluations computed") if stored else fresh
    if len(missing) or len(stored) > len(wanted):
        place = {str(keys[position]): row for row, position in enumerate(missing.tolist())}
        rows = np.stack([fresh[place[key]] if key in place else old[stored[key]] for key in wanted.tolist()])
        artifacts.write_array(path, rows, made_by, {"keys": wanted.tolist()})
    else:
        rows = np.asarray(old)
    return rows[own]


# How the images of all arms compare with what was seen: part -> arm -> metric -> table, values, or score of the set.
Part = Literal["tables", "values", "sets"]
MetricTables = dict[Part, dict[str, dict[str, Any]]]


def compare(
    run: RunFolder, given: ImagePairs, prompts: Sequence[str], partners: np.ndarray
) -> tuple[MetricTables, np.ndarray | None, dict[str, str]]:
    """Compare every arm's images with what was seen: by the judge, by pixels, and by the networks available; also the
    judge's embeddings of the prompts, and which metrics are not computed, and why."""
    settings, variant = run.settings.evaluate, VARIANTS[run.settings.evaluate.variant]
    # Beyond the judge and PixCorr and SSIM in cells: names of networks, and the metrics of each.
    units: list[tuple[str, FeatureNetwork | None, list[str]]] = []
    if variant.pixels is not None:
        units.append(("", None, [f"{metric}@{settings.variant}" for metric in ("pixcorr", "ssim")]))
    if settings.variant == DEFAULT:
        computed = [metric for metric, row in METRICS.items() if row.kind]
        by_network: dict[str, list[str]] = {}
        for metric in dict.fromkeys([*(settings.metrics or computed), SECOND_JUDGE]):
            row = METRICS[check_option("evaluate.metrics", metric, computed)]
            by_network.setdefault(row.networks[0] if row.networks else "", []).append(metric)
        units += [(name, FEATURE_NETWORKS.get(name), metrics) for name, metrics in by_network.items()]
    elif settings.metrics:
        raise NeuroCanvasError(
            f"--metrics: says which networks the variant {DEFAULT} asks; {settings.variant} has its own. Leave one out."
        )
    else:
        units += [(metric, network, [f"{metric}@{settings.variant}"]) for metric, network in variant.networks.items()]
        judged = SECOND_JUDGE if not variant.two_way else f"{SECOND_JUDGE}@{settings.variant}"
        units.append((SECOND_JUDGE, FEATURE_NETWORKS[SECOND_JUDGE], [judged]))
    judged_by = artifacts.fingerprint("judge", source_hash(find_family(settings.judge).judge))
    paths = np.concatenate([given.seen, *given.drawn.values()])

    def embed(missing: np.ndarray) -> np.ndarray:
        parts = [(paths[missing[part]], given.size) for part in batches(len(missing), AT_ONCE)]
        found = run.spread("evaluate", _judge, parts, title="judge", sizes=[len(part) for part, _ in parts])
        return np.concatenate(list(found))

    embedded = cached(run, "judge", judged_by, [given.keys[path] for path in paths], embed)
    seen, *drawn = np.split(embedded, np.cumsum([len(given.seen), *map(len, given.drawn.values())])[:-1])
    compared: MetricTables = {part: {arm: {} for arm in given.drawn} for part in ("tables", "values", "sets")}
    prompted, not_computed = None, dict[str, str]()
    if prompts:
        texts = cached(
            run, "judge-texts", judged_by, prompts,
            lambda missing: judge_texts([prompts[row] for row in missing], settings.judge),
        )  # fmt: skip
        prompted = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    for arm, rows in zip(given.drawn, drawn, strict=True):
        in_cells = _pixels_in_cells(run, given, arm, partners)
        compared["tables"][arm] = {"similarity": similarity(rows, seen)}
        if prompted is not None:
            compared["tables"][arm]["concept"] = rows / np.linalg.norm(rows, axis=1, keepdims=True) @ prompted.T
        compared["tables"][arm] |= {"pixcorr": in_cells[..., 0], "ssim": in_cells[..., 1]}
    for scores, missing in run.spread("evaluate", partial(_measured, given), units, title="networks"):
        for metric, (part, of_arms) in scores.items():
            for arm, score in of_arms.items():
                compared[part][arm][metric] = score
        not_computed |= missing
    return compared, prompted, not_computed


def _judge(run: RunFolder, unit: tuple[np.ndarray, tuple[int, int] | None]) -> np.ndarray:
    """The judge's embeddings of some images."""
    judge = find_family(run.settings.evaluate.judge).judge
    encode, _ = process_cache("evaluate", "judge", judge, lambda: load_picture_encoder(judge))
    return encode(list(read_pictures(*unit)))


def _pixels_in_cells(run: RunFolder, given: ImagePairs, arm: str, partners: np.ndarray) -> np.ndarray:
    """PixCorr and SSIM of an arm's images with the seen images of their cells, (n_trials, width, 2)."""
    drawn, seen = given.drawn[arm], given.seen[given.shown]  # of every trial
    dealt, group = np.unique(partners, axis=0, return_inverse=True)  # one group per cell and place in a block
    group = group.reshape(-1)
    pictures = [seen[row[row >= 0]] for row in dealt]
    of_group = [artifacts.fingerprint([given.keys[path] for path in paths]) for paths in pictures]

    def measure(missing: np.ndarray) -> np.ndarray:
        parts = [missing[group[missing] == one] for one in np.unique(group[missing])]
        units = [(drawn[rows], pictures[group[rows[0]]], given.size) for rows in parts]
        sizes = [len(rows) for rows in parts]
        found = np.full((len(group), OTHERS + 1, 2), np.nan)  # as wide as any cell, so that rows can be stored together
        tables = run.spread("evaluate", _pixel_table, units, title=f"pixels {arm}", sizes=sizes)
        for rows, table in zip(parts, tables, strict=True):
            found[rows, : table.shape[1]] = table
        return found[missing]

    keys = [f"{given.keys[path]}-{of_group[one]}" for path, one in zip(drawn, group, strict=True)]
    rows = cached(run, f"pixels-{arm}", artifacts.fingerprint("pixels in cells"), keys, measure)
    return rows[:, : partners.shape[1]]


def _pixel_table(_: RunFolder, unit: tuple[np.ndarray, np.ndarray, tuple[int, int] | None]) -> np.ndarray:
    """PixCorr and SSIM of a few drawn with a few seen images, (n_drawn, n_seen, 2)."""
    drawn, seen = (read_pictures(paths, unit[2]) / 255 for paths in unit[:2])
    return np.stack([pixels.pixcorr(drawn, seen, table=True), pixels.ssim(drawn, seen, table=True)], axis=-1)


@dataclass
class Network:
    """One network's features of images, cached; it is loaded when some are missing."""

    run: RunFolder
    given: ImagePairs
    name: str
    network: FeatureNetwork
    fetch: bool
    variant: Variant | None
    made_by: str  # fingerprint of the network; with what the variant does to drawn images:
    drawn_by: str

    @cached_property
    def loaded(self) -> tuple[Callable[..., Any], feature_networks.Forward]:
        """From files of images (of drawn ones, as a variant changes them) to network input, and on to its layers."""
        folder, fetch = self.run.settings.evaluate.weights, self.fetch and os.environ.get("HF_HUB_OFFLINE") != "1"
        if folder and self.network.library == "transformers":
            folder = str(Path(folder) / self.network.source.rsplit("/", 1)[-1])
        ready, forward = feature_networks.load_network(self.network, folder=folder, download=fetch)

        def prepare(paths: np.ndarray, variant: Variant | None = None) -> Any:
            pictures = read_pictures(paths, self.given.size)
            return ready(pictures if variant is None else as_published(pictures, variant))

        return prepare, forward

    def features(self, arm: str = "") -> np.ndarray:
        """Features of an arm's images, or of the gallery."""
        paths, made_by = (self.given.drawn[arm], self.drawn_by) if arm else (self.given.seen, self.made_by)
        return cached(
            self.run, f"{self.name}-{arm or 'seen'}", made_by, [self.given.keys[path] for path in paths],
            lambda rows: extract_features(
                paths[rows], partial(self.loaded[0], variant=self.variant if arm else None), self.loaded[1]
            ),
        )  # fmt: skip

    def similarity(self, arm: str) -> np.ndarray:
        """Correlation of the features of every image of an arm with those of every seen image."""
        if self.name.partition("@")[0] not in WIDE:
            return similarity(self.features(arm), self.features())
        paths, keys = self.given.drawn[arm], self.given.keys

        def compare_parts(rows: np.ndarray) -> np.ndarray:
            prepare, forward = self.loaded
            seen, published = (
                extract_features(self.given.seen, prepare, forward),
                partial(prepare, variant=self.variant),
            )
            parts = [paths[rows[part]] for part in batches(len(rows), AT_ONCE)]
            return np.concatenate([similarity(extract_features(one, published, forward), seen) for one in parts])

        made_by = artifacts.fingerprint(self.drawn_by, [keys[path] for path in self.given.seen])
        return cached(self.run, f"{self.name}-{arm}", made_by, [keys[path] for path in paths], compare_parts)


# Metric -> its part of `MetricTables`, and the score of each arm.
Scores = dict[str, tuple[Part, dict[str, Any]]]


def _measured(
    given: ImagePairs, run: RunFolder, unit: tuple[str, FeatureNetwork | None, list[str]]
) -> tuple[Scores, dict[str, str]]:
    """All metrics of one network, or of pixels; and which are not computed, and why."""
    name, known, metrics = unit
    settings, scores, not_computed = run.settings.evaluate, Scores(), dict[str, str]()
    network: Network | None = None
    if known is not None:
        variant = VARIANTS[settings.variant] if any("@" in metric for metric in metrics) else None
        made_by = artifacts.fingerprint("features", repr(known), source_hash(settings.weights))
        published = "" if variant is None else (variant.jpeg, variant.generated_resize)
        network = Network(
            run, given, name if variant is None else f"{name}@{settings.variant}", known,
            any(metric in settings.metrics for metric in metrics), variant,
            made_by, artifacts.fingerprint(made_by, repr(published)),
        )  # fmt: skip
    for metric in metrics:
        try:
            found = [_score(given, run, network, metric, arm) for arm in given.drawn]
            scores[metric] = found[0][0], dict(zip(given.drawn, (score for _, score in found), strict=True))
        except NotComputed as error:
            not_computed[metric.partition("@")[0]] = str(error)
    return scores, not_computed


def _score(given: ImagePairs, run: RunFolder, network: Network | None, metric: str, arm: str) -> tuple[Part, Any]:
    """A metric of an arm's images, of a network's features or of pixels."""
    name, _, variant = metric.partition("@")
    drawn, shown, row = given.drawn[arm], given.shown, VARIANTS.get(variant)
    seen, kind = given.seen[shown], "" if variant else METRICS[name].kind
    pairs = [f"{given.keys[one]}-{given.keys[other]}" for one, other in zip(drawn, seen, strict=True)]
    if network is None and row is not None:  # PixCorr and SSIM of true pairs
        how = (row.pixels, row.window, row.clamped, row.jpeg, row.generated_resize)
        found = cached(
            run, f"pixels@{variant}-{arm}", artifacts.fingerprint("pixels of pairs", repr(how)), pairs,
            lambda missing: np.concatenate([
                pixels_of_pairs(
                    read_pictures(drawn[missing[part]], given.size), read_pictures(seen[missing[part]], given.size),
                    variant,
                )
                for part in batches(len(missing), AT_ONCE)
            ]),
        )  # fmt: skip
        if name == "pixcorr" and row.divisor:
            return "values", add_up(found[:, 0], row.divisor)
        return "values", found[:, 0 if name == "pixcorr" else 1]
    if network is None:
        function = METRICS[name].function
        if function is None:
            raise TypeError(f"METRICS[{name!r}] has neither a network nor a function.")
        pictures = ((read_pictures([path], given.size)[0] for path in paths) for paths in (drawn, seen))
        return "values", np.array([function(*pair) for pair in zip(*pictures, strict=True)])
    if kind == "two-way":  # for every image that could have been the true one
        return "tables", two_way_table(network.similarity(arm))
    if kind == "distance":
        return "tables", 1 - network.similarity(arm)
    if kind == "lpips":
        return "values", cached(
            run, f"lpips-{arm}", network.made_by, pairs,
            lambda rows: feature_networks.lpips(
                drawn[rows], seen[rows], *network.loaded, feature_networks.load_lpips_heads()
            ),
        )  # fmt: skip
    if kind == "n-way" or (row is not None and row.n_way):
        features = network.features(arm), network.features()[shown]
        return "values", n_way_class(*features, variant) if variant else n_way_class(*features)
    if variant:
        return "values", score_similarity(network.similarity(arm)[:, shown], name, variant)
    drawn_features = network.features(arm)  # metrics of sets; seen images count as often as they were shown
    if metric == "inception-score":
        return "sets", inception_score(drawn_features)
    seen_features = network.features()[shown]
    if metric == "kid":
        rng = np.random.default_rng(run.settings.evaluate.seed)
        return "sets", kid(drawn_features, seen_features, rng=rng, subset_size=min(1000, len(drawn_features)))
    return "sets", fid(drawn_features, seen_features)


# Smallest gallery for which top-5 accuracy means something.
FEWEST_PICTURES = 6

# How importance is measured -> title and meaning; the first as in [Breiman2001].
IMPORTANCE = {
    "permutation": ("Permuted", "its values exchanged between test trials"),
    "occlusion": ("Occluded", "its values replaced by the training mean"),
}


def explain(run: RunFolder) -> tuple[list[Path], dict[str, Any]]:
    """Retrieval, diversity and feature importance of predictions whose decoders and features are still there."""
    rng, first = np.random.default_rng(run.settings.evaluate.seed), 0
    parts: dict[str, list[tuple[dict[str, dict[str, Any]], int]]] = {"retrieval": [], "diversity": []}
    whose, exchanged, lost = [], [], dict[tuple[str, str, str], list[np.ndarray]]()
    for subject in run.subjects:
        path, pool = run.path("predictions", subject), run.pool(subject)
        try:
            made_from = {path.parent / name: key for name, key in artifacts.read_sidecar(path)["made_from"].items()}
            current = all(artifacts.read_sidecar(one)["fingerprint"] == key for one, key in made_from.items())
            decoders = decoders_of(run, subject) if current else []
        except (NeuroCanvasError, KeyError):
            continue
        if not decoders:
            continue
        values, shown = read_inputs(run, subject, decoders[0]), np.searchsorted(run.stimuli, pool.column("image"))
        blocked = bool(blocked_trials(pool).any())
        for decoder, split in zip(decoders, run.split(subject).folds, strict=True):
            decoder.set_params(device=run.settings.execution.device)
            features, rows, _ = select_inputs(values, pool, split.test, run.settings.split.average_test)
            of_test, true = np.unique(shown[rows], return_inverse=True)
            targets = run.targets()[of_test]
            if len(of_test) < 2 or decoder.space_.shape != targets.shape[1:]:
                continue
            concepts = np.array([run.dataset[1].concepts[run.stimuli[row]] for row in of_test])
            training_mean = values[split.joined().train].mean(axis=0)
            found = _of_fold(decoder, np.asarray(features), training_mean, targets, true, concepts, rng)
            parts["retrieval"].append((found[0], len(true)))
            parts["diversity"].append((found[1], len(true)))
            for what, drops in found[2].items():
                lost.setdefault(what, []).append(drops)
            whose.append(np.full(len(true), subject))
            units = np.unique(pool.column("block")[rows], return_inverse=True)[1] if blocked else np.arange(len(rows))
            exchanged.append(first + units)
            first += len(rows)
    # Over folds: numbers of trials are added up, other numbers averaged by trials, texts and booleans left as they are.
    said: dict[str, Any] = {part: {} for part in parts}
    named = [(what, name) for what, made in parts.items() for name in dict.fromkeys(n for one, _ in made for n in one)]
    for kind, name in named:
        folds = [(one[name], n) for one, n in parts[kind] if name in one]
        said[kind][name] = mean = dict(folds[0][0])
        for key in [key for key, value in mean.items() if not isinstance(value, str | bool)]:
            values_of, weights = zip(*((one[key], n) for one, n in folds if key in one), strict=True)
            mean[key] = sum(values_of) if key == "n_trials" else float(np.average(values_of, weights=weights))
    if not whose:
        return [], said
    strata, units = ranks(np.concatenate(whose)), np.concatenate(exchanged)
    if len(np.unique(strata)) >= MANY_SUBJECTS:
        units, strata = strata, np.zeros_like(strata)
    lines = []
    for what, drops_of_folds in lost.items():
        drops = np.concatenate(drops_of_folds)
        interval = bootstrap_interval(drops, units, strata=strata, rng=np.random.default_rng(0))
        lines.append((*what, float(drops.mean()), *(interval or (np.nan, np.nan))))
    path = run.folder / "scores" / "importance.csv"
    artifacts.write_text(path, csv_text([("kind", "group", "name", "drop", "low", "high"), *lines]))
    return [path], said


def _of_fold(
    decoder: Decoder,
    features: np.ndarray,
    training_mean: np.ndarray,
    targets: np.ndarray,
    true: np.ndarray,
    concepts: np.ndarray,
    rng: np.random.Generator,
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]], dict[tuple[str, str, str], np.ndarray]]:
    """Retrieval, diversity, and what every test trial loses without each band and electrode, of one fold."""
    basis, predicted, spec = decoder.basis_, decoder.outputs(features), decoder.input_spec
    coordinates, distance = basis.transform(targets), basis.squared_distance(targets)
    # A prediction is the mean training target plus a weighted sum of a few axes, so its products with a target are the
    # same sum of the target's products with these: exact, and no prediction is ever expanded.
    summands = np.concatenate([basis.mean.reshape(1, -1), basis.axes / basis.scale]).astype(np.float64)
    weights = np.column_stack([np.ones(len(predicted)), predicted]).astype(np.float64)
    flat = targets.reshape(len(targets), -1)
    retrieved: dict[str, dict[str, Any]] = {}
    for centring, transductive in CENTRINGS.items():
        if len(targets) < FEWEST_PICTURES or not np.ptp(predicted, axis=0).any():
            break
        own, shift = weights, np.zeros(1)
        if centring != "none":
            own, shift = weights - weights.mean(axis=0), flat.mean(axis=0, dtype=np.float64)
        products, squared = np.empty((len(flat), len(summands))), np.empty(len(flat))
        for part in batches(len(flat), AT_ONCE):
            shifted = flat[part] - shift
            products[part], squared[part] = shifted @ summands.T, np.einsum("nd,nd->n", shifted, shifted)
        lengths = np.einsum("nk,kl,nl->n", own, summands @ summands.T, own, optimize=True)
        with np.errstate(divide="ignore", invalid="ignore"):  # cosines in the whole target space
            table = np.asarray(own @ products.T / np.sqrt(lengths)[:, None] / np.sqrt(squared))
        if not np.isfinite(table).all():  # all targets are equal, and nothing is left of them around their mean
            continue
        for rule, (together, _) in ASSIGNMENT_RULES.items():
            if rule == "hungarian" and len(true) > len(targets):
                continue  # several trials of one image cannot each have an image of their own
            retrieved[rule if centring == "none" else f"centred {rule}"] = {
                "transductive": transductive or together, "rule": rule, "centring": centring,
                "space": f"{decoder.space_.name} targets, {' x '.join(map(str, targets.shape[1:]))}",
                "n_trials": len(true), "n_pictures": len(targets),
                **retrieve(table, true, concepts[true], concepts, rule=rule),
            }  # fmt: skip
    diverse: dict[str, dict[str, Any]] = {}
    for what, rows in (("predictions", predicted), ("targets", coordinates[true])):
        diverse[what] = {"n_trials": len(rows), **diversity(rows)}
    if not spec.bands:
        return retrieved, diverse, {}  # what signal loses without a band or electrode is not asked
    every = slice(None)
    groups: dict[tuple[str, str], tuple[int | slice, int | slice]] = {
        **{("electrode", name): (row, every) for row, name in enumerate(spec.ch_names)},
        **{("band", name): (every, row) for row, name in enumerate(spec.bands)},
    }
    # two-way identification in coordinates, but with the whole length of targets, so it is exact
    lost = importance(
        lambda given: two_way_of_trials(decoder.outputs(given), coordinates[true], distance[true], true),
        features, groups, training_mean, rng=rng,
    )  # fmt: skip
    return retrieved, diverse, {(kind, *group): lost[kind][group] for kind in IMPORTANCE for group in groups}


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
    if len(features) < 2 or training_mean.shape != features.shape[1:]:
        raise NeuroCanvasError(
            f"importance: 2 or more trials and a mean of one trial's shape are needed; got features {features.shape}, "
            f"mean {training_mean.shape}."
        )
    whole = score(features)
    orders = [rng.permutation(len(features)) for _ in range(5)]
    found: dict[str, dict[Any, np.ndarray]] = {kind: {} for kind in IMPORTANCE}
    for name, (chans, bands) in groups.items():
        without = []
        for order in orders:
            changed = features.copy()
            changed[:, chans, bands] = features[order][:, chans, bands]
            without.append(score(changed))
        found["permutation"][name] = whole - np.mean(without, axis=0)
        changed = features.copy()
        changed[:, chans, bands] = training_mean[chans, bands]
        found["occlusion"][name] = whole - score(changed)
    return found


def evaluate(run: RunFolder) -> list[Path]:
    """Score every arm's images against what was seen: the run's own, or a folder against another one."""
    settings, scores = run.settings.evaluate, run.folder / "scores"
    read = _read_elsewhere if settings.against else _read_images
    (drawn, seen, shown, size), trials, blocked, gallery, concepts, findings = read(run)
    keys = {
        path: artifacts.fingerprint(check_file(path, "an image; make it again").read_bytes(), size)
        for path in dict.fromkeys(np.concatenate([seen, *drawn.values()]).tolist())
    }
    given = ImagePairs(drawn, seen, shown, size, keys)
    strata, units = exchangeable(trials, blocked)[1:]  # no other random stream has the seed of the cells
    cells = draw_cells(strata, units, rng=np.random.default_rng([settings.seed, 1]))
    compared, prompted, not_computed = compare(run, given, [prompt(name) for name in concepts.values()], cells[1])
    tables, sets = compared["tables"], compared["sets"]
    true = np.searchsorted(list(concepts), trials["concept"]) if concepts else np.empty(0, np.int64)
    if VARIANTS[settings.variant].upper_half and not concepts:
        not_computed["upper_half"] = "the concepts are not known"
    elif VARIANTS[settings.variant].upper_half:
        for arm, of_arm in tables.items():
            values = upper_half(of_arm["concept"], true, settings.variant)
            compared["values"][arm][f"upper_half@{settings.variant}"] = values
    summary, rows = summarise(
        tables, trials, gallery, concepts, settings, blocked=blocked, cells=cells,
        rng=np.random.default_rng(settings.seed), findings=findings, values=compared["values"],
    )  # fmt: skip
    made, said = ([], {}) if settings.against else explain(run)
    for arm, what in (("eeg", "predictions"), ("oracle", "targets")):
        one = said["diversity"].get(what, {}) if said and arm in drawn else {}
        for metric in [name for name in ("effective_rank", "mean_cosine") if name in one]:
            sets[arm][metric] = {"value": one[metric], "n_generated": one["n_trials"]}
    metrics = {}
    measured = {metric for part in compared.values() for arm in part.values() for metric in arm}
    for metric in sorted(measured | not_computed.keys()):
        name, _, variant = metric.partition("@")
        if name in METRICS and metric not in BASIC:
            known = METRICS[name]
            chance = NOT_COMPUTED if variant and not isinstance(known.chance, float) else str(known.chance)
            metrics[metric] = {
                "title": f"{known.title} ({variant})" if variant else known.title, "direction": known.better,
                "chance": chance, "unit": known.unit, "reference": known.reference, "variant": variant,
            }  # fmt: skip
    summary |= {"sets": sets, "not_computed": not_computed, "metrics": metrics}
    summary |= {"retrieval": said["retrieval"]} if said else {}
    paths = [*_write_scores(scores, summary, rows, tables, prompted, trials, true, concepts, blocked=blocked), *made]
    for stale in {scores / name for name in NOT_ALWAYS} - {*paths}:
        stale.unlink(missing_ok=True)  # of an earlier evaluation
    return paths


# Tables that are written only where concepts or decoders are known.
NOT_ALWAYS = ("concepts.csv", "confusion.csv", "concept_order.csv", "importance.csv")

# First fields of `ImagePairs`; columns of trials; whether blocked; names of gallery and concepts; findings.
Files = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, tuple[int, int] | None]
Read = tuple[Files, dict[str, np.ndarray], bool, list[str], dict[str, str], list[Finding]]


def _read_images(run: RunFolder) -> Read:
    """Find the run's own images, and read what is known of their trials."""
    images = run.folder / "images"
    entries = read_manifest(run, images / "manifest.jsonl")
    arms = list(dict.fromkeys(entry["arm"] for entry in entries))
    of_arm = {arm: {(e["subject"], e["trial"]): e for e in entries if e["arm"] == arm} for arm in arms}
    common, every = set.intersection(*map(set, of_arm.values())), set.union(*map(set, of_arm.values()))
    if not common:
        raise NeuroCanvasError(f"{images}: no trial has images of all arms ({', '.join(arms)}); generate them all.")
    if common != every:
        text = f"{len(every) - len(common)} of {len(every)} trials lack images of some arm and are left out"
        run.log("evaluate", warning=text)
        sys.stderr.write(f"neurocanvas: {text}\n")
    # arms that were drawn by several commands may list the subjects in different orders
    pairs = [pair for pair in of_arm[arms[0]] if pair in common]
    first = [of_arm[arms[0]][pair] for pair in pairs]
    gallery, names = sorted({entry["stimulus"] for entry in first}), run.dataset[1].names
    concepts = {concept: names[concept] for concept in sorted({entry["concept"] for entry in first})}
    trials = {name: np.array([entry[name] for entry in first]) for name in ("subject", "trial", "stimulus", "concept")}
    files = (
        {arm: np.array([images / of_one[pair]["file"] for pair in pairs]) for arm, of_one in of_arm.items()},
        np.array([images / "seen" / f"{stimulus}.png" for stimulus in gallery]),
        np.searchsorted(gallery, trials["stimulus"]),
        None,
    )
    sidecars = {subject: artifacts.read_sidecar(run.path("predictions", subject)) for subject in dict(pairs)}
    fold = {
        subject: dict(zip(sidecar["trials"], sidecar["folds"], strict=True)) for subject, sidecar in sidecars.items()
    }
    trials["block"] = np.array([run.subjects[subject].column("block")[trial] for subject, trial in pairs])
    trials["fold"] = np.array([fold[subject][trial] for subject, trial in pairs])
    findings = [one for sidecar in sidecars.values() for one in read_findings(sidecar["findings"])]
    return files, trials, any(sidecar["blocked"] for sidecar in sidecars.values()), gallery, concepts, findings


def _read_elsewhere(run: RunFolder) -> Read:
    """Find the images of a folder and those that were seen, in another folder."""
    from neurocanvas.audit.external import choose_size, read_pairing

    settings = run.settings.evaluate
    if (run.folder / "predictions").is_dir():
        raise NeuroCanvasError(f"{run.folder}: is a run with images of its own; name another folder by -o.")
    if not run.settings.data.pictures:
        raise NeuroCanvasError("--images: the folder of images that were made is needed beside --against.")
    table = Path(settings.pairs) if settings.pairs else None
    pairing = read_pairing(Path(run.settings.data.pictures), Path(settings.against), table)
    size, notes = choose_size(pairing)
    trials, blocked = _columns(pairing)
    arms = {GIVEN: np.array([path.absolute() for path in pairing.images])}
    dealt = _dealt_out(trials, np.random.default_rng(settings.seed))
    if dealt is not None:
        arms["shuffled"] = arms[GIVEN][dealt]
    gallery = np.array([path.absolute() for path in pairing.gallery])
    files = arms, gallery, np.asarray(pairing.seen), size
    concepts = {str(name): str(name) for name in np.unique(trials["concept"]) if name}
    return files, trials, blocked, _names(pairing), concepts, [*pairing.findings, *notes]


def _write_scores(
    folder: Path,
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    tables: Mapping[str, Mapping[str, np.ndarray]],
    prompted: np.ndarray | None,
    trials: Mapping[str, np.ndarray],
    true: np.ndarray,
    concepts: Mapping[str, str],
    *,
    blocked: bool,
) -> list[Path]:
    """Write the scores, the judge's confusion matrix of concepts, and two orders of concepts."""
    from sklearn.metrics import confusion_matrix

    per_concept = [
        {"concept": concept, "name": said["name"], "n": said["n"], "arm": arm, **said[arm]}
        for concept, said in summary["concepts"].items() for arm in summary["arms"]
    ]  # fmt: skip
    paths = [folder / "summary.json"]
    artifacts.write_json(paths[0], summary)
    for name, table in (("trials.csv", rows), ("concepts.csv", per_concept)):
        if table:
            paths.append(folder / name)
            write_table(paths[-1], {column: np.array([row[column] for row in table]) for column in table[0]})
    if prompted is None:
        return paths
    ids, cells = list(concepts), []
    for arm, of_arm in tables.items():
        counts = confusion_matrix(true, of_arm["concept"].argmax(axis=1), labels=np.arange(len(ids)))
        cells += [(arm, ids[row], ids[column], int(counts[row, column])) for row, column in np.argwhere(counts)]
    artifacts.write_text(folder / "confusion.csv", csv_text([("arm", "true", "named", "count"), *cells]))
    first = [int(trials["block"][true == row].min()) for row in range(len(ids))]
    write_table(folder / "concept_order.csv", {
        "concept": np.array(ids), "name": np.array(list(concepts.values())),
        "semantic": semantic_order(prompted),
        "block": np.argsort(np.argsort(first, kind="stable")) if blocked else np.full(len(ids), ""),
    })  # fmt: skip
    return [*paths, folder / "confusion.csv", folder / "concept_order.csv"]


def _columns(pairing: Pairing) -> tuple[dict[str, np.ndarray], bool]:
    """Trial columns for the statistics, and whether concepts came in blocks; an unknown column is constant."""
    n = len(pairing.images)
    given = {name: np.asarray(values) for name, values in pairing.columns.items()}

    def numbered(name: str) -> np.ndarray:
        return np.unique(given[name], return_inverse=True)[1] if name in given else np.zeros(n, np.int64)

    columns: dict[str, Any] = {
        "subject": given.get("subject", np.full(n, "0")).astype(str),
        "trial": np.arange(n), "fold": np.zeros(n, np.int64),
        "stimulus": np.array(_names(pairing))[pairing.seen],
        "concept": given.get("concept", np.full(n, "")), "block": numbered("block"),
    }  # fmt: skip
    if "concept" not in given or not {"block", "order"} & given.keys():
        return columns, False
    try:
        order = given["order"].astype(float) if "order" in given else columns["block"]
    except ValueError as error:
        raise NeuroCanvasError(f"pairing table: the column order must hold numbers ({error}).") from error
    if "block" not in given:  # the contiguous runs of one concept
        recorded = np.lexsort([order, columns["subject"]])
        changes = columns["concept"][recorded][1:] != columns["concept"][recorded][:-1]
        columns["block"][recorded[1:]] = np.cumsum(changes)
    table = {name: columns[name] for name in ("subject", "block", "concept")}
    return columns, bool(blocked_trials(without_signal({**table, "order": ranks(order)})).any())


def _dealt_out(trials: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray | None:
    """For every trial another image of its subject, as the floor; None if a subject has only one."""
    order = np.empty(len(trials["subject"]), np.int64)
    for subject in np.unique(trials["subject"]):
        rows = np.flatnonzero(trials["subject"] == subject)
        if len(rows) < 2:
            return None
        order[rows] = rows[derangement(trials["stimulus"][rows], rng=rng)]
    return order


def _names(pairing: Pairing) -> list[str]:
    """Distinct names of the seen images: from where their paths differ."""
    common = os.path.commonpath([path.parent for path in pairing.gallery])
    return [path.relative_to(common).as_posix() for path in pairing.gallery]
