"""Pictures beside pictures: what the judge, the feature networks and the pixels say of every arm."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neurocanvas import store
from neurocanvas.config import EvaluateSettings
from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.evaluation.metrics import METRICS, NOT_COMPUTED
from neurocanvas.evaluation.networks import FEATURE_NETWORKS, FeatureNetwork, LoadedNetwork, NotComputed
from neurocanvas.evaluation.statistics import OTHERS, Cells
from neurocanvas.evaluation.summary import sign
from neurocanvas.evaluation.variant_scores import SECOND_JUDGE
from neurocanvas.evaluation.variants import VARIANTS
from neurocanvas.families import find_family, load_picture_encoder, source_print
from neurocanvas.scale import kept
from neurocanvas.stages.compared_pictures import Given, Pictures, cached
from neurocanvas.stages.run import Run

# Pictures that are embedded at once.
AT_ONCE = 64

# What a variant measures of pixels, beside metrics of networks.
PIXELS = "pixels"

# Its networks are those of `FEATURE_NETWORKS`; they are scored as all else is here, with permutations.
DEFAULT = "mindeye"

# Tables of every arm, which the summary makes scores of.
BASIC = ("similarity", "concept", "pixcorr", "ssim")

# Metrics that identify the seen picture by the features of one network.
TWO_WAY = ("alexnet2", "alexnet5", "inception", "clip", "clip-vit-h", "dinov2")

# Metrics that are the correlation distance of features.
DISTANCES = ("efficientnet-b1", "swav")

# Metrics of all pictures together.
SETS = ("fid-64", "fid-2048", "kid", "inception-score")

# Networks with up to .7 MB of features per picture, too much to store: similarities to the gallery are cached instead.
WIDE = ("alexnet2", "alexnet5")


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
    """Compare every arm's pictures with what was seen."""
    from neurocanvas.evaluation.identification import similarity

    seen, *embedded = _judged(run, [given.seen, *given.drawn.values()])
    prompted = _unit(_judged_texts(run, prompts)) if prompts else None
    tables: dict[str, dict[str, np.ndarray]] = {}
    for arm, of_arm in zip(given.drawn, embedded, strict=True):
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


def _judge_print(settings: EvaluateSettings) -> str:
    return store.fingerprint("judge", source_print(find_family(settings.judge).judge))


def _judged(run: Run, groups: Sequence[Pictures]) -> list[np.ndarray]:
    """The judge's embeddings of several groups of pictures."""
    together = Pictures(tuple(path for group in groups for path in group.paths), groups[0].size)

    def embed(missing: np.ndarray) -> np.ndarray:
        parts = together.take(missing).parts(AT_ONCE)
        sizes = [len(part) for part in parts]
        return np.concatenate(list(run.spread("evaluate", _embed, parts, title="judge", sizes=sizes)))

    keys = [key for group in groups for key in group.keys]
    embedded = cached(run, "judge", _judge_print(run.settings.evaluate), keys, embed)
    return np.split(embedded, np.cumsum([len(group) for group in groups])[:-1])


def _judged_texts(run: Run, prompts: Sequence[str]) -> np.ndarray:
    """The judge's embeddings of texts."""
    from neurocanvas.evaluation.judge import judge_texts

    settings = run.settings.evaluate
    return cached(
        run, "judge-texts", _judge_print(settings), prompts,
        lambda missing: judge_texts([prompts[row] for row in missing], settings.judge),
    )  # fmt: skip


def _embed(run: Run, pictures: Pictures) -> np.ndarray:
    """The judge's embeddings of some pictures."""
    judge = find_family(run.settings.evaluate.judge).judge
    encode, _ = kept("evaluate", "judge", judge, lambda: load_picture_encoder(judge))
    return encode(list(pictures[:]))


def _pixels_in_cells(run: Run, given: Given, arm: str, cells: Cells) -> np.ndarray:
    """PixCorr and SSIM of an arm's pictures with the seen pictures of their cells, (n_trials, width, 2)."""
    drawn, shown, seen = given.drawn[arm], given.shown[arm], np.array(given.seen.keys)
    dealt, group = np.unique(cells.partners, axis=0, return_inverse=True)  # one group per cell and place in a block
    group = group.reshape(-1)
    pictures = [shown[row[row >= 0]] for row in dealt]
    of_group = [store.fingerprint(seen[rows].tolist()) for rows in pictures]

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
    rows = cached(run, f"pixels-{arm}", store.fingerprint("pixels in cells"), keys, measure)
    return rows[:, : cells.partners.shape[1]]


def _pixel_table(_: Run, unit: tuple[Pictures, Pictures]) -> np.ndarray:
    """PixCorr and SSIM of a few drawn with a few seen pictures, (n_drawn, n_seen, 2)."""
    from neurocanvas.evaluation.images import pixcorr_table, ssim_table

    drawn, seen = (pictures[:] / 255 for pictures in unit)
    return np.stack([pixcorr_table(drawn, seen), ssim_table(drawn, seen)], axis=-1)


def _further(run: Run) -> list[tuple[str, FeatureNetwork | None, list[str]]]:
    """What is measured beyond the judge and PixCorr and SSIM in cells: names of networks, and the metrics of each."""
    settings, variant = run.settings.evaluate, VARIANTS[run.settings.evaluate.variant]
    units: list[tuple[str, FeatureNetwork | None, list[str]]] = []
    if variant.pixels is not None:
        units.append((PIXELS, None, []))
    if settings.variant != DEFAULT:
        if settings.metrics:
            raise NeuroCanvasError(
                f"--metrics: says which networks the variant {DEFAULT} asks; {settings.variant} has its own. "
                "Leave one out."
            )
        units += [(metric, network, [f"{metric}@{settings.variant}"]) for metric, network in variant.networks.items()]
        judged = SECOND_JUDGE if not variant.two_way else f"{SECOND_JUDGE}@{settings.variant}"
        return [*units, (SECOND_JUDGE, FEATURE_NETWORKS[SECOND_JUDGE], [judged])]
    known = [check_option("evaluate.metrics", metric, FURTHER) for metric in settings.metrics or FURTHER]
    by_network: dict[str, list[str]] = {}
    for metric in dict.fromkeys([*known, SECOND_JUDGE]):
        by_network.setdefault(METRICS[metric].networks[0], []).append(metric)
    return [*units, *((name, FEATURE_NETWORKS[name], metrics) for name, metrics in by_network.items())]


def _published(variant: str) -> str:
    """What a variant does to drawn pictures before it compares them; for fingerprints."""
    return repr((VARIANTS[variant].jpeg, VARIANTS[variant].generated_resize))


class Network:
    """The features that one network gives of pictures, cached; it is loaded when one is missing."""

    def __init__(self, run: Run, name: str, network: FeatureNetwork, *, fetch: bool, variant: str = "") -> None:
        self.run, self.network, self.fetch, self.variant = run, network, fetch, variant
        self.wide = name in WIDE
        self.name = f"{name}@{variant}" if variant else name
        self.made_by = store.fingerprint("features", repr(network), source_print(run.settings.evaluate.weights))
        self.drawn_by = store.fingerprint(self.made_by, _published(variant) if variant else "")

    @cached_property
    def loaded(self) -> LoadedNetwork:
        from neurocanvas.evaluation.weights import load_network

        folder = self.run.settings.evaluate.weights
        if folder and self.network.library == "transformers":
            folder = str(Path(folder) / self.network.source.rsplit("/", 1)[-1])
        offline = os.environ.get("HF_HUB_OFFLINE") == "1"
        loaded = load_network(self.network, folder=folder, download=self.fetch and not offline)
        if isinstance(loaded, NotComputed):
            raise WeightsMissing(loaded.reason)
        return loaded

    def read(self, pictures: Pictures, *, drawn: bool) -> np.ndarray:
        """Compute features; a variant may change drawn pictures before."""
        from neurocanvas.evaluation.networks import extract_features
        from neurocanvas.evaluation.variant_scores import as_published

        loaded, prepare = self.loaded, self.loaded.prepare
        if drawn and self.variant:
            prepare = lambda some: loaded.prepare(as_published(some, VARIANTS[self.variant]))  # noqa: E731
        return extract_features(pictures, prepare, loaded.forward)

    def of_seen(self, given: Given) -> np.ndarray:
        """Features of the gallery."""
        read = partial(self.read, drawn=False)
        return cached(
            self.run, f"{self.name}-seen", self.made_by, given.seen.keys, lambda rows: read(given.seen.take(rows))
        )

    def of_drawn(self, given: Given, arm: str) -> np.ndarray:
        """Features of an arm's pictures."""
        pictures, read = given.drawn[arm], partial(self.read, drawn=True)
        return cached(
            self.run, f"{self.name}-{arm}", self.drawn_by, pictures.keys, lambda rows: read(pictures.take(rows))
        )

    def similarity(self, given: Given, arm: str) -> np.ndarray:
        """Correlation of the features of every picture of an arm with those of every seen picture."""
        from neurocanvas.evaluation.identification import similarity

        if not self.wide:
            return similarity(self.of_drawn(given, arm), self.of_seen(given))
        pictures = given.drawn[arm]

        def compare_parts(rows: np.ndarray) -> np.ndarray:
            seen = self.read(given.seen, drawn=False)
            parts = pictures.take(rows).parts(AT_ONCE)
            return np.concatenate([similarity(self.read(part, drawn=True), seen) for part in parts])

        made_by = store.fingerprint(self.drawn_by, given.seen.keys)
        return cached(self.run, f"{self.name}-{arm}", made_by, pictures.keys, compare_parts)


# Of each metric, into which part of `Compared` it goes, and of each arm the score.
Part = Literal["tables", "values", "sets"]
Scores = dict[str, tuple[Part, dict[str, Any]]]


def _measured(
    given: Given, run: Run, unit: tuple[str, FeatureNetwork | None, list[str]]
) -> tuple[Scores, dict[str, str]]:
    """The variant's scores of pixels, or all metrics of one network; and which are not computed, and why."""
    name, known, metrics = unit
    settings, scores, not_computed = run.settings.evaluate, Scores(), dict[str, str]()
    if known is None:
        return _variant_pixels(run, given), {}
    by_variant = any("@" in metric for metric in metrics)
    network = Network(
        run, name, known, fetch=any(metric in settings.metrics for metric in metrics),
        variant=settings.variant if by_variant else "",
    )  # fmt: skip
    for metric in metrics:
        part, measure = FURTHER.get(metric, BY_VARIANT)
        try:
            scores[metric] = part, {arm: measure(network, metric, given, arm) for arm in given.drawn}
        except WeightsMissing as error:
            not_computed[metric.partition("@")[0]] = str(error)
    return scores, not_computed


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length one."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _variant_pixels(run: Run, given: Given) -> Scores:
    """PixCorr and SSIM of true pairs as the variant computes them."""
    from neurocanvas.evaluation.variant_scores import add_up, pixels_of_pairs

    name, scores = run.settings.evaluate.variant, Scores()
    made_by = store.fingerprint("pixels of pairs", repr(VARIANTS[name].pixels), _published(name))
    for arm in given.drawn:
        drawn, seen = given.drawn[arm], given.seen.take(given.shown[arm])
        rows = cached(
            run, f"{PIXELS}@{name}-{arm}", made_by, given.pairs(arm),
            partial(lambda drawn, seen, rows: pixels_of_pairs(drawn.take(rows), seen.take(rows), name), drawn, seen),
        )  # fmt: skip
        for metric, values in (("pixcorr", add_up(rows[:, 0], name)), ("ssim", rows[:, 1])):
            scores.setdefault(f"{metric}@{name}", ("values", {}))[1][arm] = values
    return scores


def _two_way(network: Network, _: str, given: Given, arm: str) -> np.ndarray:
    """Two-way identification, for every picture that could have been the true one."""
    from neurocanvas.evaluation.identification import two_way_table

    return two_way_table(network.similarity(given, arm))


def _distance(network: Network, _: str, given: Given, arm: str) -> np.ndarray:
    """Negative correlation distance."""
    return network.similarity(given, arm) - 1


def _lpips(network: Network, _: str, given: Given, arm: str) -> np.ndarray:
    """Negative perceptual distance of true pairs."""
    from neurocanvas.evaluation.networks import lpips
    from neurocanvas.evaluation.weights import load_lpips_heads

    drawn, seen = given.drawn[arm], given.seen.take(given.shown[arm])

    def measure(rows: np.ndarray) -> np.ndarray:
        loaded, heads = network.loaded, load_lpips_heads()
        if isinstance(heads, NotComputed):
            raise WeightsMissing(heads.reason)
        return lpips(drawn.take(rows), seen.take(rows), loaded.prepare, loaded.forward, heads)

    return -cached(network.run, f"lpips-{arm}", network.made_by, given.pairs(arm), measure)


def _n_way(network: Network, _: str, given: Given, arm: str) -> np.ndarray:
    """Is the class of the seen picture the best of 50 for the generated one?"""
    from neurocanvas.evaluation.variant_scores import n_way_class

    return n_way_class(network.of_drawn(given, arm), network.of_seen(given)[given.shown[arm]])


def _by_variant(network: Network, metric: str, given: Given, arm: str) -> np.ndarray:
    """A metric of true pairs as another variant than the default computes it, turned so that more is better."""
    from neurocanvas.evaluation.variant_scores import n_way_class, score_similarity

    name, _, variant = metric.partition("@")
    if VARIANTS[variant].n_way:
        return n_way_class(network.of_drawn(given, arm), network.of_seen(given)[given.shown[arm]], variant)
    return sign(metric) * score_similarity(network.similarity(given, arm)[:, given.shown[arm]], name, variant)


def _of_set(network: Network, metric: str, given: Given, arm: str) -> dict[str, Any]:
    """FID, KID or inception score; the seen pictures count as often as they were shown."""
    from neurocanvas.evaluation.distributions import FeatureMoments, fid, inception_score, kid

    drawn = network.of_drawn(given, arm)
    if metric == "inception-score":
        return asdict(inception_score(drawn))
    shown = network.of_seen(given)[given.shown[arm]]
    if metric == "kid":
        rng = np.random.default_rng(network.run.settings.evaluate.seed)
        return asdict(kid(drawn, shown, rng=rng, subset_size=min(1000, len(drawn))))
    moments = FeatureMoments(shown.shape[1]), FeatureMoments(shown.shape[1])
    for moment, rows in zip(moments, (drawn, shown), strict=True):
        moment.update(rows)
    return asdict(fid(*moments))


# Metrics of networks under the default variant: the part of `Compared`, and what measures them; and all under another.
Measure = Callable[[Network, str, Given, str], Any]
FURTHER: Mapping[str, tuple[Part, Measure]] = {
    **dict.fromkeys(TWO_WAY, ("tables", _two_way)), **dict.fromkeys(DISTANCES, ("tables", _distance)),
    "top1-of-50": ("values", _n_way), **dict.fromkeys(SETS, ("sets", _of_set)), "lpips": ("values", _lpips),
}  # fmt: skip
BY_VARIANT: tuple[Part, Measure] = "values", _by_variant


def add_upper_half(found: Compared, true: np.ndarray, settings: EvaluateSettings) -> None:
    """Add the variant's indicator that the true concept is in the upper half of the judge's ranking, if it has one."""
    from neurocanvas.evaluation.variant_scores import upper_half

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
