"""From pictures to scores and the page: the stages evaluate and report."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neurocanvas import artifacts
from neurocanvas.audit.external import GIVEN, Pairing, choose_size, read_pairing, read_pictures
from neurocanvas.audit.variants import (
    SECOND_JUDGE,
    VARIANTS,
    add_up,
    as_published,
    n_way_class,
    pixels_of_pairs,
    score_similarity,
    upper_half,
)
from neurocanvas.config import EvaluateSettings
from neurocanvas.data.splits import is_blocked
from neurocanvas.data.trials import ranks, without_signal
from neurocanvas.decoder import Decoder
from neurocanvas.errors import NeuroCanvasError, check_file, check_option
from neurocanvas.evaluation import feature_networks
from neurocanvas.evaluation.feature_networks import (
    FEATURE_NETWORKS,
    FeatureNetwork,
    LoadedNetwork,
    NotComputed,
    extract_features,
)
from neurocanvas.evaluation.identification import similarity, two_way_table
from neurocanvas.evaluation.judge import judge_texts
from neurocanvas.evaluation.metrics import METRICS, NOT_COMPUTED
from neurocanvas.evaluation.pixels import pixcorr_table, ssim_table
from neurocanvas.evaluation.retrieval import ASSIGNMENT_RULES, CENTRINGS, centred, retrieve
from neurocanvas.evaluation.set_metrics import (
    FeatureMoments,
    effective_rank,
    fid,
    inception_score,
    kid,
    mean_pairwise_cosine,
)
from neurocanvas.evaluation.statistics import OTHERS, Cells, bootstrap_interval
from neurocanvas.evaluation.summary import (
    MANY_SUBJECTS,
    confusion_counts,
    draw_cells,
    semantic_order,
    sign,
    summarise,
)
from neurocanvas.findings import Finding, read_findings
from neurocanvas.generation.arms import derangement
from neurocanvas.parallel import process_cache
from neurocanvas.pipeline.generate import read_manifest
from neurocanvas.pipeline.run import Run, read_picture, write_table
from neurocanvas.pipeline.train import asked, decoders_of, read_inputs
from neurocanvas.targets.captions import prompt
from neurocanvas.targets.pretrained import batches, find_family, load_picture_encoder, source_print
from neurocanvas.training.losses import two_way_of_trials

# Pictures that are embedded at once; targets that are read at once.
AT_ONCE, ROWS_AT_ONCE = 64, 64

# The variant that is not only described here: its networks are those of `FEATURE_NETWORKS`, scored with permutations.
DEFAULT = "mindeye"

# Tables of every arm, which the summary makes scores of.
BASIC = ("similarity", "concept", "pixcorr", "ssim")

# Networks with up to .7 MB of features per picture, too much to store: similarities to the gallery are cached instead.
WIDE = ("alexnet2", "alexnet5")


@dataclass(frozen=True)
class Pictures(Sequence[np.ndarray]):
    """Pictures in files, as they are or in one size."""

    paths: tuple[Path, ...]
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: int | slice, /) -> np.ndarray:  # type: ignore[override]
        """(n, height, width, 3), uint8; for an integer that one picture."""
        if not isinstance(rows, slice):
            return self[rows : rows + 1][0]
        paths = self.paths[rows]
        return read_pictures(paths, self.size) if self.size else np.stack([read_picture(path) for path in paths])

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Of each picture a hash of its file and of the size at which it is compared."""
        of_path = {
            path: artifacts.fingerprint(check_file(path, "a picture; make it again").read_bytes(), self.size)
            for path in dict.fromkeys(self.paths)
        }
        return tuple(of_path[path] for path in self.paths)

    def take(self, rows: np.ndarray) -> Pictures:
        """Select rows, some perhaps more than once; nothing is read."""
        return Pictures(tuple(self.paths[row] for row in rows.tolist()), self.size)


@dataclass(frozen=True)
class Given:
    """What is compared: the pictures of every arm, the gallery of seen ones, and each trial's row in the gallery."""

    drawn: Mapping[str, Pictures]
    seen: Pictures
    shown: Mapping[str, np.ndarray]

    def pairs(self, arm: str) -> list[str]:
        """Of each trial of an arm a key of the drawn and the seen picture."""
        seen = np.array(self.seen.keys)[self.shown[arm]]
        return [f"{drawn}-{own}" for drawn, own in zip(self.drawn[arm].keys, seen, strict=True)]


def cached(
    run: Run, name: str, made_by: str, keys: Sequence[str], compute: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """One row per key: stored by the last evaluation, or from `compute`, which gets the positions of the missing ones.
    `made_by` is the fingerprint of the metric and its settings."""
    path = run.folder / "scores" / "per_image" / f"{name}.npy"
    wanted, first, own = np.unique(np.asarray(keys), return_index=True, return_inverse=True)
    stored: dict[str, int] = {}
    if artifacts.is_done(path, made_by):
        stored = {key: row for row, key in enumerate(artifacts.read_card(path)["keys"])}
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


@dataclass
class Compared:
    """What is known of the pictures of all arms beside what was seen."""

    tables: dict[str, dict[str, np.ndarray]]
    prompted: np.ndarray | None
    values: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    sets: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    not_computed: dict[str, str] = field(default_factory=dict)


class WeightsMissing(Exception):
    """A network's features are neither cached nor can they be computed here."""


def compare(run: Run, given: Given, prompts: Sequence[str], cells: Cells) -> Compared:
    """Compare every arm's pictures with what was seen: by the judge, by pixels, and by the networks that are here."""
    settings, groups = run.settings.evaluate, [given.seen, *given.drawn.values()]
    judged_by = artifacts.fingerprint("judge", source_print(find_family(settings.judge).judge))
    together = Pictures(tuple(path for group in groups for path in group.paths), given.seen.size)

    def embed(missing: np.ndarray) -> np.ndarray:
        parts = [together.take(missing[part]) for part in batches(len(missing), AT_ONCE)]
        found = run.spread("evaluate", _judge, parts, title="judge", sizes=[len(part) for part in parts])
        return np.concatenate(list(found))

    embedded = cached(run, "judge", judged_by, [key for group in groups for key in group.keys], embed)
    seen, *drawn = np.split(embedded, np.cumsum([len(group) for group in groups])[:-1])
    prompted = None
    if prompts:
        prompted = _unit(cached(
            run, "judge-texts", judged_by, prompts,
            lambda missing: judge_texts([prompts[row] for row in missing], settings.judge),
        ))  # fmt: skip
    tables: dict[str, dict[str, np.ndarray]] = {}
    for arm, of_arm in zip(given.drawn, drawn, strict=True):
        pixels = _pixels_in_cells(run, given, arm, cells)
        tables[arm] = {
            "similarity": similarity(of_arm, seen),
            **({} if prompted is None else {"concept": _unit(of_arm) @ prompted.T}),
            "pixcorr": pixels[..., 0], "ssim": pixels[..., 1],
        }  # fmt: skip
    found = Compared(tables, prompted, {arm: {} for arm in given.drawn}, {arm: {} for arm in given.drawn})
    for scores, not_computed in run.spread("evaluate", partial(_measured, given), _further(run), title="networks"):
        for metric, (part, of_arms) in scores.items():
            for arm, score in of_arms.items():
                getattr(found, part)[arm][metric] = score
        found.not_computed |= not_computed
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length one."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _judge(run: Run, pictures: Pictures) -> np.ndarray:
    """The judge's embeddings of some pictures."""
    judge = find_family(run.settings.evaluate.judge).judge
    encode, _ = process_cache("evaluate", "judge", judge, lambda: load_picture_encoder(judge))
    return encode(list(pictures[:]))


def _pixels_in_cells(run: Run, given: Given, arm: str, cells: Cells) -> np.ndarray:
    """PixCorr and SSIM of an arm's pictures with the seen pictures of their cells, (n_trials, width, 2)."""
    drawn, shown, seen = given.drawn[arm], given.shown[arm], np.array(given.seen.keys)
    dealt, group = np.unique(cells.partners, axis=0, return_inverse=True)  # one group per cell and place in a block
    group = group.reshape(-1)
    pictures = [shown[row[row >= 0]] for row in dealt]
    of_group = [artifacts.fingerprint(seen[rows].tolist()) for rows in pictures]

    def measure(missing: np.ndarray) -> np.ndarray:
        parts = [missing[group[missing] == one] for one in np.unique(group[missing])]
        units = [(drawn.take(rows), given.seen.take(pictures[group[rows[0]]])) for rows in parts]
        sizes = [len(rows) for rows in parts]
        found = np.full((len(group), OTHERS + 1, 2), np.nan)  # as wide as any cell, so that rows can be stored together
        tables = run.spread("evaluate", _pixel_table, units, title=f"pixels {arm}", sizes=sizes)
        for rows, table in zip(parts, tables, strict=True):
            found[rows, : table.shape[1]] = table
        return found[missing]

    keys = [f"{key}-{of_group[one]}" for key, one in zip(drawn.keys, group, strict=True)]
    rows = cached(run, f"pixels-{arm}", artifacts.fingerprint("pixels in cells"), keys, measure)
    return rows[:, : cells.partners.shape[1]]


def _pixel_table(_: Run, unit: tuple[Pictures, Pictures]) -> np.ndarray:
    """PixCorr and SSIM of a few drawn with a few seen pictures, (n_drawn, n_seen, 2)."""
    drawn, seen = (pictures[:] / 255 for pictures in unit)
    return np.stack([pixcorr_table(drawn, seen), ssim_table(drawn, seen)], axis=-1)


def _further(run: Run) -> list[tuple[str, FeatureNetwork | None, list[str]]]:
    """What is measured beyond the judge and PixCorr and SSIM in cells: names of networks, and the metrics of each."""
    settings, variant = run.settings.evaluate, VARIANTS[run.settings.evaluate.variant]
    units: list[tuple[str, FeatureNetwork | None, list[str]]] = []
    if variant.pixels is not None:
        units.append(("", None, [f"{metric}@{settings.variant}" for metric in ("pixcorr", "ssim")]))
    if settings.variant != DEFAULT:
        if settings.metrics:
            raise NeuroCanvasError(
                f"--metrics: says which networks the variant {DEFAULT} asks; {settings.variant} has its own. "
                "Leave one out."
            )
        units += [(metric, network, [f"{metric}@{settings.variant}"]) for metric, network in variant.networks.items()]
        judged = SECOND_JUDGE if not variant.two_way else f"{SECOND_JUDGE}@{settings.variant}"
        return [*units, (SECOND_JUDGE, FEATURE_NETWORKS[SECOND_JUDGE], [judged])]
    computed = [metric for metric, row in METRICS.items() if row.kind]
    by_network: dict[str, list[str]] = {}
    for metric in dict.fromkeys([*(settings.metrics or computed), SECOND_JUDGE]):
        row = METRICS[check_option("evaluate.metrics", metric, computed)]
        by_network.setdefault(row.networks[0] if row.networks else "", []).append(metric)
    return [*units, *((name, FEATURE_NETWORKS.get(name), metrics) for name, metrics in by_network.items())]


class Network:
    """The features that one network gives of pictures, cached; it is loaded when one is missing."""

    def __init__(self, run: Run, name: str, network: FeatureNetwork, *, fetch: bool, variant: str = "") -> None:
        self.run, self.network, self.fetch, self.variant = run, network, fetch, variant
        self.wide = name in WIDE
        self.name = f"{name}@{variant}" if variant else name
        self.made_by = artifacts.fingerprint("features", repr(network), source_print(run.settings.evaluate.weights))
        published = (VARIANTS[variant].jpeg, VARIANTS[variant].generated_resize) if variant else ""
        self.drawn_by = artifacts.fingerprint(self.made_by, repr(published))

    @cached_property
    def loaded(self) -> LoadedNetwork:
        folder = self.run.settings.evaluate.weights
        if folder and self.network.library == "transformers":
            folder = str(Path(folder) / self.network.source.rsplit("/", 1)[-1])
        offline = os.environ.get("HF_HUB_OFFLINE") == "1"
        loaded = feature_networks.load_network(self.network, folder=folder, download=self.fetch and not offline)
        if isinstance(loaded, NotComputed):
            raise WeightsMissing(loaded.reason)
        return loaded

    def read(self, pictures: Pictures, *, drawn: bool) -> np.ndarray:
        """Compute features; a variant may change drawn pictures before."""
        loaded, prepare = self.loaded, self.loaded.prepare
        if drawn and self.variant:
            prepare = lambda some: loaded.prepare(as_published(some, VARIANTS[self.variant]))  # noqa: E731
        return extract_features(pictures, prepare, loaded.forward)

    def features(self, given: Given, arm: str = "") -> np.ndarray:
        """Features of an arm's pictures, or of the gallery."""
        pictures, made_by = (given.drawn[arm], self.drawn_by) if arm else (given.seen, self.made_by)
        return cached(
            self.run, f"{self.name}-{arm or 'seen'}", made_by, pictures.keys,
            lambda rows: self.read(pictures.take(rows), drawn=bool(arm)),
        )  # fmt: skip

    def similarity(self, given: Given, arm: str) -> np.ndarray:
        """Correlation of the features of every picture of an arm with those of every seen picture."""
        if not self.wide:
            return similarity(self.features(given, arm), self.features(given))
        pictures = given.drawn[arm]

        def compare_parts(rows: np.ndarray) -> np.ndarray:
            seen = self.read(given.seen, drawn=False)
            parts = [pictures.take(rows[part]) for part in batches(len(rows), AT_ONCE)]
            return np.concatenate([similarity(self.read(part, drawn=True), seen) for part in parts])

        made_by = artifacts.fingerprint(self.drawn_by, given.seen.keys)
        return cached(self.run, f"{self.name}-{arm}", made_by, pictures.keys, compare_parts)


# Of each metric, into which part of `Compared` it goes, and of each arm the score.
Part = Literal["tables", "values", "sets"]
Scores = dict[str, tuple[Part, dict[str, Any]]]


def _measured(
    given: Given, run: Run, unit: tuple[str, FeatureNetwork | None, list[str]]
) -> tuple[Scores, dict[str, str]]:
    """All metrics of one network, or those of pixels; and which are not computed, and why."""
    name, known, metrics = unit
    settings, scores, not_computed = run.settings.evaluate, Scores(), dict[str, str]()
    network: Network | None = None
    if known is not None:
        network = Network(
            run, name, known, fetch=any(metric in settings.metrics for metric in metrics),
            variant=settings.variant if any("@" in metric for metric in metrics) else "",
        )  # fmt: skip
    for metric in metrics:
        try:
            if network is None:
                found: list[tuple[Part, Any]] = [_of_pixels(run, metric, given, arm) for arm in given.drawn]
            else:
                found = [_of_network(network, metric, given, arm) for arm in given.drawn]
            scores[metric] = found[0][0], dict(zip(given.drawn, (score for _, score in found), strict=True))
        except WeightsMissing as error:
            not_computed[metric.partition("@")[0]] = str(error)
    return scores, not_computed


def _of_pixels(run: Run, metric: str, given: Given, arm: str) -> tuple[Part, np.ndarray]:
    """A metric of true pairs of pictures: PixCorr or SSIM as the variant computes them, or the row's own function."""
    name, _, variant = metric.partition("@")
    drawn, seen, function = given.drawn[arm], given.seen.take(given.shown[arm]), METRICS[name].function
    if not variant:
        if function is None:
            raise TypeError(f"METRICS[{name!r}] has neither a network nor a function.")
        return "values", sign(metric) * np.asarray([function(drawn[row], seen[row]) for row in range(len(drawn))])
    row = VARIANTS[variant]
    made_by = artifacts.fingerprint("pixels of pairs", repr(row.pixels), repr((row.jpeg, row.generated_resize)))
    rows = cached(
        run, f"pixels@{variant}-{arm}", made_by, given.pairs(arm),
        lambda missing: pixels_of_pairs(drawn.take(missing), seen.take(missing), variant),
    )  # fmt: skip
    return "values", add_up(rows[:, 0], variant) if name == "pixcorr" else rows[:, 1]


def _of_network(network: Network, metric: str, given: Given, arm: str) -> tuple[Part, Any]:
    """A metric of a network's features; values are turned so that more is better."""
    name, _, variant = metric.partition("@")
    shown, kind = given.shown[arm], "" if variant else METRICS[name].kind
    if kind == "two-way":  # for every picture that could have been the true one
        return "tables", two_way_table(network.similarity(given, arm))
    if kind == "distance":
        return "tables", network.similarity(given, arm) - 1
    if kind == "lpips":
        drawn, seen = given.drawn[arm], given.seen.take(shown)

        def measure(rows: np.ndarray) -> np.ndarray:
            loaded, heads = network.loaded, feature_networks.load_lpips_heads()
            if isinstance(heads, NotComputed):
                raise WeightsMissing(heads.reason)
            return feature_networks.lpips(drawn.take(rows), seen.take(rows), loaded.prepare, loaded.forward, heads)

        return "values", -cached(network.run, f"lpips-{arm}", network.made_by, given.pairs(arm), measure)
    if kind == "n-way" or (variant and VARIANTS[variant].n_way):
        features = network.features(given, arm), network.features(given)[shown]
        return "values", n_way_class(*features, variant) if variant else n_way_class(*features)
    if variant:
        return "values", sign(metric) * score_similarity(network.similarity(given, arm)[:, shown], name, variant)
    drawn_features = network.features(given, arm)  # metrics of sets; seen pictures count as often as they were shown
    if metric == "inception-score":
        return "sets", asdict(inception_score(drawn_features))
    seen_features = network.features(given)[shown]
    if metric == "kid":
        rng = np.random.default_rng(network.run.settings.evaluate.seed)
        return "sets", asdict(kid(drawn_features, seen_features, rng=rng, subset_size=min(1000, len(drawn_features))))
    moments = FeatureMoments(seen_features.shape[1]), FeatureMoments(seen_features.shape[1])
    for moment, rows in zip(moments, (drawn_features, seen_features), strict=True):
        moment.update(rows)
    return "sets", asdict(fid(*moments))


def add_upper_half(found: Compared, true: np.ndarray, settings: EvaluateSettings) -> None:
    """Add the variant's indicator that the true concept is in the upper half of the judge's ranking, if it has one."""
    if not VARIANTS[settings.variant].upper_half:
        return
    if not len(true):
        found.not_computed["upper_half"] = "the concepts are not known"
        return
    for arm, tables in found.tables.items():
        found.values[arm][f"upper_half@{settings.variant}"] = upper_half(tables["concept"], true, settings.variant)


def described(compared: Compared) -> dict[str, Any]:
    """Say what the further metrics are: for the summary."""
    parts = compared.tables, compared.values, compared.sets
    measured = {metric for part in parts for arm in part.values() for metric in arm}
    metrics = {}
    for metric in sorted(measured | compared.not_computed.keys()):
        name, _, variant = metric.partition("@")
        if name in METRICS and metric not in BASIC:
            known = METRICS[name]
            chance = NOT_COMPUTED if variant and not isinstance(known.chance, float) else str(known.chance)
            metrics[metric] = {
                "title": f"{known.title} ({variant})" if variant else known.title, "direction": known.better,
                "chance": chance, "unit": known.unit, "reference": known.reference, "variant": variant,
            }  # fmt: skip
    return {"sets": compared.sets, "not_computed": compared.not_computed, "metrics": metrics}


def write_scores(folder: Path, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Write the scores of a run."""
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
    return paths


def write_confusions(
    folder: Path,
    compared: Compared,
    trials: Mapping[str, np.ndarray],
    concepts: Mapping[str, str],
    *,
    blocked: bool,
) -> list[Path]:
    """Write which concepts the judge names for pictures of which, and two orders of concepts."""
    if compared.prompted is None:
        return []
    ids = list(concepts)
    true = np.array([ids.index(concept) for concept in trials["concept"]])
    cells = []
    for arm, tables in compared.tables.items():
        counts = confusion_counts(tables["concept"], true)
        cells += [(arm, ids[row], ids[column], int(counts[row, column])) for row, column in np.argwhere(counts)]
    columns = ("arm", "true", "named", "count")
    write_table(
        folder / "confusion.csv", {name: np.array([cell[at] for cell in cells]) for at, name in enumerate(columns)}
    )
    first = [int(trials["block"][true == row].min()) for row in range(len(ids))]
    write_table(folder / "concept_order.csv", {
        "concept": np.array(ids), "name": np.array(list(concepts.values())),
        "semantic": semantic_order(compared.prompted),
        "block": np.argsort(np.argsort(first, kind="stable")) if blocked else np.full(len(ids), ""),
    })  # fmt: skip
    return [folder / "confusion.csv", folder / "concept_order.csv"]


# Of a gallery in which the five best are a score.
FEWEST_PICTURES = 6


@dataclass(frozen=True)
class Fold:
    """One subject's test trials of one fold, as the decoder sees them."""

    decoder: Decoder
    features: np.ndarray
    training_mean: np.ndarray
    targets: np.ndarray
    coordinates: np.ndarray
    distance: np.ndarray
    true: np.ndarray
    concepts: np.ndarray
    units: np.ndarray
    subject: str


def explain(run: Run) -> tuple[list[Path], dict[str, Any]]:
    """Say what the run's predictions are like and rest on."""
    rng = np.random.default_rng(run.settings.evaluate.seed)
    retrieved, diverse, whose, exchanged = [], [], [], []
    lost: dict[tuple[str, str, str], list[np.ndarray]] = {}
    for fold in _folds(run):
        n_trials = len(fold.true)
        retrieved.append((_retrieved(fold, run.settings.embed.target), n_trials))
        diverse.append((_diversity(fold), n_trials))
        whose.append(np.full(n_trials, fold.subject))
        exchanged.append(fold.units)
        for what, drops in _lost(fold, rng):
            lost.setdefault(what, []).append(drops)
    said = {"retrieval": _averaged(retrieved), "diversity": _averaged(diverse)}
    if not whose:
        return [], said
    subject, units = ranks(np.concatenate(whose)), np.concatenate(exchanged)
    strata = subject
    if len(np.unique(subject)) >= MANY_SUBJECTS:
        units, strata = subject, np.zeros(len(subject), np.int64)
    lines = []
    for what, parts in lost.items():
        drops = np.concatenate(parts)
        interval = bootstrap_interval(drops, units, strata=strata, rng=np.random.default_rng(0))
        lines.append((*what, float(drops.mean()), *(interval or (np.nan, np.nan))))
    columns = ("kind", "group", "name", "drop", "low", "high")
    path = run.folder / "scores" / "importance.csv"
    write_table(path, {name: np.array([line[at] for line in lines]) for at, name in enumerate(columns)})
    return [path], said


def _folds(run: Run) -> Iterator[Fold]:
    """Every fold whose predictions come from decoders and features that are still there."""
    first = 0
    for subject in run.subjects:
        path, pool = run.folder / "predictions" / f"s{subject}.npy", run.pool(subject)
        try:
            made_from = {path.parent / name: key for name, key in artifacts.read_card(path)["made_from"].items()}
            current = all(artifacts.read_card(one)["fingerprint"] == key for one, key in made_from.items())
            decoders = decoders_of(run, subject) if current else []
        except (NeuroCanvasError, KeyError):
            continue
        if not decoders:
            continue
        values, shown, blocked = read_inputs(run, subject, decoders[0]), run.stimulus_rows(pool), is_blocked(pool)
        splits = run.split(subject)
        for decoder, split in zip(decoders, splits, strict=True):
            decoder.set_params(device=run.settings.execution.device)
            features, rows, _ = asked(values, pool, split.test, run.settings.split.average_test)
            of_test, true = np.unique(shown[rows], return_inverse=True)
            targets = run.targets()[of_test]
            if len(of_test) < 2 or decoder.space_.shape != targets.shape[1:]:
                continue
            stimuli = run.dataset[1]
            units = np.unique(pool.column("block")[rows], return_inverse=True)[1] if blocked else np.arange(len(rows))
            yield Fold(
                decoder, np.asarray(features), values[split.joined().train].mean(axis=0),
                targets, decoder.basis_.transform(targets), decoder.basis_.squared_distance(targets), true,
                np.array([stimuli.concepts[run.stimuli[row]] for row in of_test]), first + units, subject,
            )  # fmt: skip
            first += len(rows)


def _lost(fold: Fold, rng: np.random.Generator) -> Iterator[tuple[tuple[str, str, str], np.ndarray]]:
    """What every trial of a fold loses without each band and each electrode."""
    every, spec = slice(None), fold.decoder.input_spec
    if not spec.bands:
        return  # what signal loses without a band or electrode is not asked
    groups: dict[tuple[str, str], tuple[int | slice, int | slice]] = {
        **{("electrode", name): (row, every) for row, name in enumerate(spec.ch_names)},
        **{("band", name): (every, row) for row, name in enumerate(spec.bands)},
    }
    found = importance(
        partial(_identified, fold), fold.features, {"/".join(group): where for group, where in groups.items()},
        fold.training_mean, rng=rng,
    )  # fmt: skip
    for kind in IMPORTANCE:
        for group in groups:
            yield (kind, *group), found[kind]["/".join(group)]


# How importance is measured -> title and meaning; the first as in [Breiman2001].
IMPORTANCE = {
    "permutation": ("Permuted", "its values exchanged between test trials"),
    "occlusion": ("Occluded", "its values replaced by the training mean"),
}


def importance(
    score: Callable[[np.ndarray], np.ndarray],
    features: np.ndarray,
    groups: Mapping[str, tuple[int | slice, int | slice]],
    training_mean: np.ndarray,
    *,
    rng: np.random.Generator,
    repeats: int = 5,
) -> dict[str, dict[str, np.ndarray]]:
    """Loss of each trial's score, (n_trials,), without a group of features (n_trials, n_chans, n_bands)."""
    # Groups that carry the same information hide one another: neither is missed while the other is there. Below 0, a
    # group misleads.
    if len(features) < 2 or training_mean.shape != features.shape[1:]:
        raise NeuroCanvasError(
            f"importance: 2 or more trials and a mean of one trial's shape are needed; got features {features.shape}, "
            f"mean {training_mean.shape}."
        )
    whole = score(features)
    orders = [rng.permutation(len(features)) for _ in range(repeats)]
    found: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in IMPORTANCE}
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


def _identified(fold: Fold, features: np.ndarray) -> np.ndarray:
    """Two-way identification of every trial: in coordinates, but with the whole length of targets, so it is exact."""
    predicted = fold.decoder.outputs(features)
    return two_way_of_trials(predicted, fold.coordinates[fold.true], fold.distance[fold.true], fold.true)


def cosines(fold: Fold, centring: str) -> np.ndarray:
    """Cosine of every prediction with every target of the gallery, in the whole target space."""
    # A prediction is the mean training target plus a weighted sum of a few axes, so its products with a target are the
    # same sum of the target's products with these: exact, and no prediction is ever expanded.
    basis, predicted = fold.decoder.basis_, fold.decoder.outputs(fold.features)
    rows = np.concatenate([basis.mean.reshape(1, -1), basis.axes / basis.scale]).astype(np.float64)
    weights = centred(np.column_stack([np.ones(len(predicted)), predicted]).astype(np.float64), centring)
    flat = fold.targets.reshape(len(fold.targets), -1)
    shift = flat.mean(axis=0, dtype=np.float64) if centring != "none" else np.zeros(1)
    products, squared = np.empty((len(flat), len(rows))), np.empty(len(flat))
    for part in batches(len(flat), ROWS_AT_ONCE):
        targets = flat[part] - shift
        products[part], squared[part] = targets @ rows.T, np.einsum("nd,nd->n", targets, targets)
    lengths = np.einsum("nk,kl,nl->n", weights, rows @ rows.T, weights, optimize=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(weights @ products.T / np.sqrt(lengths)[:, None] / np.sqrt(squared))


def _retrieved(fold: Fold, target: str) -> dict[str, dict[str, Any]]:
    """Scores of every centring and assignment rule that the trials allow."""
    gallery, true = fold.targets, fold.true
    if len(gallery) < FEWEST_PICTURES or not np.ptp(fold.decoder.outputs(fold.features), axis=0).any():
        return {}
    found: dict[str, dict[str, Any]] = {}
    for centring, transductive in CENTRINGS.items():
        table = cosines(fold, centring)
        if not np.isfinite(table).all():  # all targets are equal, and nothing is left of them around their mean
            continue
        for rule, how in ASSIGNMENT_RULES.items():
            if rule == "hungarian" and len(true) > len(gallery):
                continue  # several trials of one picture cannot each have a picture of their own
            found[rule if centring == "none" else f"centred {rule}"] = {
                "transductive": transductive or how.transductive, "rule": rule, "centring": centring,
                "space": f"{target} targets, {' x '.join(map(str, gallery.shape[1:]))}",
                "n_trials": len(true), "n_pictures": len(gallery),
                **retrieve(table, true, fold.concepts[true], fold.concepts, rule=rule),
            }  # fmt: skip
    return found


def _diversity(fold: Fold) -> dict[str, dict[str, float]]:
    """Effective rank and mean cosine of predictions, and of the targets of the same trials."""
    found: dict[str, dict[str, float]] = {}
    predicted = fold.decoder.outputs(fold.features)
    for what, rows in (("predictions", predicted), ("targets", fold.coordinates[fold.true])):
        found[what] = {"n_trials": len(rows), "effective_rank": effective_rank(rows)}
        if (np.linalg.norm(rows, axis=1) > 0).all() and len(rows) > 1:
            found[what]["mean_cosine"] = mean_pairwise_cosine(rows)
    return found


def _averaged(parts: list[tuple[dict[str, dict[str, Any]], int]]) -> dict[str, dict[str, Any]]:
    """Mean of numbers over folds, weighted by their trials; of numbers of trials the sum; the rest as it is."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for part, _ in parts for name in part):
        folds = [(part[name], n) for part, n in parts if name in part]
        found[name] = {}
        for key, first in folds[0][0].items():
            values, weights = zip(*((one[key], n) for one, n in folds if key in one), strict=True)
            if isinstance(first, str | bool):
                found[name][key] = first
            else:
                found[name][key] = sum(values) if key == "n_trials" else float(np.average(values, weights=weights))
    return found


def evaluate_elsewhere(run: Run) -> list[Path]:
    """Score a folder of pictures against a folder of what was seen."""
    settings = run.settings.evaluate
    if (run.folder / "predictions").is_dir():
        raise NeuroCanvasError(f"{run.folder}: is a run with pictures of its own; name another folder by -o.")
    if not run.settings.data.pictures:
        raise NeuroCanvasError("--images: the folder of pictures that were made is needed beside --against.")
    table = Path(settings.pairs) if settings.pairs else None
    pairing = read_pairing(Path(run.settings.data.pictures), Path(settings.against), table)
    size, notes = choose_size(pairing)
    drawn, seen = (
        Pictures(tuple(path.absolute() for path in paths), size) for paths in (pairing.images, pairing.gallery)
    )
    trials, blocked = _columns(pairing)
    concepts = {str(name): str(name) for name in np.unique(trials["concept"]) if name}
    prompts = [prompt(name) for name in concepts]
    arms = {GIVEN: drawn}
    dealt = _dealt_out(trials, np.random.default_rng(settings.seed))
    if dealt is not None:
        arms["shuffled"] = drawn.take(dealt)
    cells = draw_cells(trials, blocked, settings.seed)
    compared = compare(run, Given(arms, seen, dict.fromkeys(arms, pairing.seen)), prompts, cells)
    add_upper_half(compared, np.searchsorted(list(concepts), trials["concept"]) if concepts else np.array([]), settings)
    summary, rows = summarise(
        compared.tables, trials, _names(pairing), concepts, settings, blocked=blocked, cells=cells,
        rng=np.random.default_rng(settings.seed), findings=[*pairing.findings, *notes], values=compared.values,
    )  # fmt: skip
    paths = write_scores(run.folder / "scores", summary | described(compared), rows)
    return paths + write_confusions(run.folder / "scores", compared, trials, concepts, blocked=blocked)


def _columns(pairing: Pairing) -> tuple[dict[str, np.ndarray], bool]:
    """Trial columns for the statistics, and whether concepts came in blocks; what is not known is one value."""
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
    return columns, is_blocked(without_signal({**table, "order": ranks(order)}))


def _dealt_out(trials: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray | None:
    """Another picture of the same subject for everyone, which is the floor; None where a subject has one only."""
    order = np.empty(len(trials["subject"]), np.int64)
    for subject in np.unique(trials["subject"]):
        rows = np.flatnonzero(trials["subject"] == subject)
        if len(rows) < 2:
            return None
        order[rows] = rows[derangement(trials["stimulus"][rows], rng=rng)]
    return order


def _names(pairing: Pairing) -> list[str]:
    """Distinct names of the seen pictures: from where their paths differ."""
    common = os.path.commonpath([path.parent for path in pairing.gallery])
    return [path.relative_to(common).as_posix() for path in pairing.gallery]


def evaluate(run: Run) -> list[Path]:
    """Score every arm's pictures against what was seen."""
    paths = evaluate_elsewhere(run) if run.settings.evaluate.against else _evaluate(run)
    for stale in {run.folder / "scores" / name for name in NOT_ALWAYS} - {*paths}:
        stale.unlink(missing_ok=True)  # of an earlier evaluation
    return paths


# Tables that are there only where concepts or mappers are known.
NOT_ALWAYS = ("concepts.csv", "confusion.csv", "concept_order.csv", "importance.csv")


def _evaluate(run: Run) -> list[Path]:
    """Score the run's own pictures."""
    settings, images = run.settings.evaluate, run.folder / "images"
    entries = read_manifest(run, images / "manifest.jsonl")
    arms = list(dict.fromkeys(entry["arm"] for entry in entries))
    trials_of = [{(e["subject"], e["trial"]) for e in entries if e["arm"] == arm} for arm in arms]
    common, every = set.intersection(*trials_of), set.union(*trials_of)
    if not common:
        raise NeuroCanvasError(f"{images}: no trial has images of all arms ({', '.join(arms)}); generate them all.")
    if common != every:
        text = f"{len(every) - len(common)} of {len(every)} trials lack images of some arm and are left out"
        run.log("evaluate", warning=text)
        sys.stderr.write(f"neurocanvas: {text}\n")
    of_arm = {arm: [e for e in entries if e["arm"] == arm and (e["subject"], e["trial"]) in common] for arm in arms}
    entries = [entry for of_one in of_arm.values() for entry in of_one]
    gallery = sorted({entry["stimulus"] for entry in entries})
    names = run.dataset[1].names
    concepts = {concept: names[concept] for concept in sorted({entry["concept"] for entry in entries})}

    given = Given(
        {arm: Pictures(tuple(images / entry["file"] for entry in of_arm[arm])) for arm in arms},
        Pictures(tuple(images / "seen" / f"{stimulus}.png" for stimulus in gallery)),
        {arm: np.searchsorted(gallery, [entry["stimulus"] for entry in of_arm[arm]]) for arm in arms},
    )
    trials, blocked, findings = _what_is_known(run, of_arm[arms[0]])
    cells = draw_cells(trials, blocked, settings.seed)
    compared = compare(run, given, [prompt(name) for name in concepts.values()], cells)
    add_upper_half(compared, np.searchsorted(list(concepts), trials["concept"]), settings)
    summary, rows = summarise(
        compared.tables, trials, gallery, concepts, settings, blocked=blocked, cells=cells,
        rng=np.random.default_rng(settings.seed), findings=findings, values=compared.values,
    )  # fmt: skip
    made, said = explain(run)
    for arm, what in (("eeg", "predictions"), ("oracle", "targets")):
        one = said["diversity"].get(what, {})
        for metric in ("effective_rank", "mean_cosine") if arm in arms else ():
            if metric in one:
                compared.sets[arm][metric] = {"value": one[metric], "n_generated": one["n_trials"]}
    summary |= {**described(compared), "retrieval": said["retrieval"]}
    paths = write_scores(run.folder / "scores", summary, rows)
    return [*paths, *write_confusions(run.folder / "scores", compared, trials, concepts, blocked=blocked), *made]


def _what_is_known(run: Run, entries: list[dict[str, Any]]) -> tuple[dict[str, np.ndarray], bool, list[Finding]]:
    """Trial columns for the statistics, whether the design is blocked, and what must be said of the splits."""
    cards = {
        s: artifacts.read_card(run.folder / "predictions" / f"s{s}.npy")
        for s in {entry["subject"] for entry in entries}
    }
    fold = {s: dict(zip(card["trials"], card["folds"], strict=True)) for s, card in cards.items()}
    columns = {
        name: np.array([entry[name] for entry in entries]) for name in ("subject", "trial", "stimulus", "concept")
    }
    pairs = list(zip(columns["subject"].tolist(), columns["trial"].tolist(), strict=True))
    columns["block"] = np.array([run.subjects[subject].column("block")[trial] for subject, trial in pairs])
    columns["fold"] = np.array([fold[subject][trial] for subject, trial in pairs])
    findings = [one for card in cards.values() for one in read_findings(card["findings"])]
    return columns, any(card["blocked"] for card in cards.values()), findings
