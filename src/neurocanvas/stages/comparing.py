"""Pictures beside pictures: what the judge, the feature networks and the pixels say of every arm."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas.config import EvaluateSettings
from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.evaluation.metrics import METRICS
from neurocanvas.evaluation.networks import FEATURE_NETWORKS, LoadedNetwork, NotComputed
from neurocanvas.evaluation.summary import sign
from neurocanvas.evaluation.variant_scores import SECOND_JUDGE
from neurocanvas.evaluation.variants import VARIANTS
from neurocanvas.families import batches, find_family, load_picture_encoder
from neurocanvas.scale import kept
from neurocanvas.stages.compared_pictures import Given, Pictures
from neurocanvas.stages.run import Run

# Pictures that are read at once, and the unit of work of the judge and of pixels.
AT_ONCE = 64

# What a variant measures at one go, beside metrics of single networks.
PIXELS, NETWORKS = "pixels", "networks"

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


@dataclass
class Compared:
    """What is known of the pictures of all arms beside what was seen."""

    tables: dict[str, dict[str, np.ndarray]]
    prompted: np.ndarray | None
    values: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    sets: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    not_computed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Features:
    """What a network makes of some of one arm's pictures and of what was seen."""

    metric: str
    arm: str
    drawn: np.ndarray
    seen: np.ndarray
    shown: np.ndarray


def compare(run: Run, given: Given, prompts: Sequence[str]) -> Compared:
    """Compare every arm's pictures with what was seen."""
    from neurocanvas.evaluation.identification import similarity
    from neurocanvas.evaluation.judge import judge_texts

    settings = run.settings.evaluate
    seen, *embedded = _judged(run, [given.seen, *given.drawn.values()])
    prompted = _unit(judge_texts(prompts, settings.judge)) if prompts else None
    tables: dict[str, dict[str, np.ndarray]] = {}
    for (arm, pictures), of_arm in zip(given.drawn.items(), embedded, strict=True):
        parts = pictures.parts(AT_ONCE)
        units, sizes = [(part, given.seen) for part in parts], [len(part) for part in parts]
        rows = run.spread("evaluate", _pixel_tables, units, title=f"pixels {arm}", sizes=sizes)
        pixcorr, ssim = (np.concatenate(blocks) for blocks in zip(*rows, strict=True))
        tables[arm] = {
            "similarity": similarity(of_arm, seen),
            **({} if prompted is None else {"concept": _unit(of_arm) @ prompted.T}),
            "pixcorr": pixcorr, "ssim": ssim,
        }  # fmt: skip
    found = Compared(tables, prompted, {arm: {} for arm in given.drawn}, {arm: {} for arm in given.drawn})
    metrics = _further(settings)
    for part in run.spread("evaluate", partial(_measured, given), metrics, title="networks"):
        for arm in given.drawn:
            found.tables[arm] |= part.tables[arm]
            found.values[arm] |= part.values[arm]
            found.sets[arm] |= part.sets[arm]
        found.not_computed |= part.not_computed
    return found


def _judged(run: Run, groups: Sequence[Pictures]) -> list[np.ndarray]:
    """The judge's embeddings of several groups of pictures."""
    units = [part for group in groups for part in group.parts(AT_ONCE)]
    parts = run.spread("evaluate", _embed, units, title="judge", sizes=[len(some) for some in units])
    embedded = np.concatenate(list(parts))
    return np.split(embedded, np.cumsum([len(group) for group in groups])[:-1])


def _embed(run: Run, pictures: Pictures) -> np.ndarray:
    """The judge's embeddings of some pictures."""
    judge = find_family(run.settings.evaluate.judge).judge
    encode, _ = kept("evaluate", "judge", judge, lambda: load_picture_encoder(judge))
    return encode(list(pictures.at(run.folder)[:]))


def _pixel_tables(run: Run, unit: tuple[Pictures, Pictures]) -> tuple[np.ndarray, np.ndarray]:
    """PixCorr and SSIM of some pictures with all that were seen, of which a few are read at a time."""
    from neurocanvas.evaluation.images import pixcorr_table, ssim_table

    drawn, seen = unit[0].at(run.folder)[:] / 255, unit[1].at(run.folder)
    tables = []
    for part in batches(len(seen), AT_ONCE):
        block = seen[part] / 255
        tables.append((pixcorr_table(drawn, block), ssim_table(drawn, block)))
    pixcorr, ssim = (np.concatenate(blocks, axis=1) for blocks in zip(*tables, strict=True))
    return pixcorr, ssim


def _further(settings: EvaluateSettings) -> list[str]:
    """What is measured beyond the judge and the tables of pixels: metrics of networks, each loaded by one worker."""
    variant = VARIANTS[settings.variant]
    pixels = [PIXELS] if variant.pixels is not None else []
    if settings.variant == DEFAULT:
        asked = settings.metrics or (*FURTHER, "lpips")
        known = [check_option("evaluate.metrics", metric, (*FURTHER, "lpips")) for metric in asked]
        return list(dict.fromkeys([*pixels, *known, SECOND_JUDGE]))
    if settings.metrics:
        raise NeuroCanvasError(
            f"--metrics: says which networks the variant {DEFAULT} asks; {settings.variant} has its own. Leave one out."
        )
    return [*pixels, *([] if variant.two_way else [SECOND_JUDGE]), *([NETWORKS] if variant.networks else [])]


def _measured(given: Given, run: Run, metric: str) -> Compared:
    """One metric of every arm."""
    given = given.at(run.folder)
    settings, none = run.settings.evaluate, {arm: dict[str, Any]() for arm in given.drawn}
    found = Compared(deepcopy(none), None, deepcopy(none), deepcopy(none))
    if metric == PIXELS:
        _pixels(found, given, settings)
    elif metric == NETWORKS:
        _variant(found, given, settings)
    else:
        loaded = _load(FEATURE_NETWORKS[METRICS[metric].networks[0]], settings, fetch=metric in settings.metrics)
        if isinstance(loaded, NotComputed):
            found.not_computed[metric] = loaded.reason
        else:
            _measure(found, metric, loaded, given, settings)
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length one."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _pixels(found: Compared, given: Given, settings: EvaluateSettings) -> None:
    """Compare pixels as the variant does."""
    from neurocanvas.evaluation.variant_scores import variant_pixels

    for arm, pictures in given.drawn.items():
        for metric, values in variant_pixels(pictures, given.seen.take(given.shown[arm]), settings.variant).items():
            found.values[arm][f"{metric}@{settings.variant}"] = values


def _variant(found: Compared, given: Given, settings: EvaluateSettings) -> None:
    """Compare by feature networks as another variant than the default does, of pairs alone."""
    from neurocanvas.evaluation.variant_scores import variant_networks

    for arm, pictures in given.drawn.items():
        scores = variant_networks(
            pictures, given.seen.take(given.shown[arm]), lambda network: _load(network, settings), settings.variant
        )
        for metric, values in scores.items():
            if isinstance(values, NotComputed):
                found.not_computed[metric] = values.reason
            else:
                found.values[arm][f"{metric}@{settings.variant}"] = sign(metric) * values


def _load(network: Any, settings: EvaluateSettings, *, fetch: bool = False) -> LoadedNetwork | NotComputed:
    """A network from the folder of weights or the caches, or fetched."""
    from neurocanvas.evaluation.weights import load_network

    folder = settings.weights
    if folder and network.library == "transformers":
        folder = str(Path(folder) / network.source.rsplit("/", 1)[-1])
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    return load_network(network, folder=folder, download=fetch and not offline)


def _measure(
    found: Compared, metric: str, network: LoadedNetwork, given: Given, settings: EvaluateSettings
) -> None:
    """One metric of every arm."""
    from neurocanvas.evaluation.networks import extract_features, lpips
    from neurocanvas.evaluation.weights import load_lpips_heads

    if metric == "lpips":
        heads = load_lpips_heads()
        if isinstance(heads, NotComputed):
            found.not_computed[metric] = heads.reason
            return
        for arm, pictures in given.drawn.items():
            distances = lpips(pictures, given.seen.take(given.shown[arm]), network.prepare, network.forward, heads)
            found.values[arm][metric] = -distances
        return
    features_of_seen = extract_features(given.seen, network.prepare, network.forward)
    for arm, pictures in given.drawn.items():
        at_once = AT_ONCE if metric in TWO_WAY else len(pictures)  # AlexNet(2) has 0.7 MB a picture
        for part, rows in zip(pictures.parts(at_once), batches(len(pictures), at_once), strict=True):
            features = extract_features(part, network.prepare, network.forward)
            one = Features(metric, arm, features, features_of_seen, given.shown[arm][rows])
            FURTHER[metric](found, one, settings)


def _identify(found: Compared, one: Features, _: EvaluateSettings) -> None:
    """Two-way identification of further trials of an arm."""
    from neurocanvas.evaluation.identification import similarity, two_way_table

    rows, of_arm = two_way_table(similarity(one.drawn, one.seen)), found.tables[one.arm]
    of_arm[one.metric] = np.concatenate([of_arm[one.metric], rows]) if one.metric in of_arm else rows


def _distance(found: Compared, one: Features, _: EvaluateSettings) -> None:
    """Negative correlation distance."""
    from neurocanvas.evaluation.identification import similarity

    found.tables[one.arm][one.metric] = similarity(one.drawn, one.seen) - 1


def _n_way(found: Compared, one: Features, _: EvaluateSettings) -> None:
    """Is the class of the seen picture the best of 50 for the generated one?"""
    from neurocanvas.evaluation.variant_scores import n_way_class

    found.values[one.arm][one.metric] = n_way_class(one.drawn, one.seen[one.shown])


def _of_set(found: Compared, one: Features, settings: EvaluateSettings) -> None:
    """FID, KID or inception score; the seen pictures count as often as they were shown."""
    from neurocanvas.evaluation.distributions import FeatureMoments, fid, inception_score, kid

    shown = one.seen[one.shown]
    if one.metric == "inception-score":
        score = inception_score(one.drawn)
    elif one.metric == "kid":
        size = min(1000, len(one.drawn))
        score = kid(one.drawn, shown, rng=np.random.default_rng(settings.seed), subset_size=size)
    else:
        moments = FeatureMoments(shown.shape[1]), FeatureMoments(shown.shape[1])
        for moment, rows in zip(moments, (one.drawn, shown), strict=True):
            moment.update(rows)
        score = fid(*moments)
    found.sets[one.arm][one.metric] = asdict(score)


# Metrics of features, and what measures them.
FURTHER: Mapping[str, Callable[[Compared, Features, EvaluateSettings], None]] = {
    **dict.fromkeys(TWO_WAY, _identify), **dict.fromkeys(DISTANCES, _distance), "top1-of-50": _n_way,
    **dict.fromkeys(SETS, _of_set),
}  # fmt: skip


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
            metrics[metric] = {
                "title": f"{known.title} ({variant})" if variant else known.title, "direction": known.better,
                "chance": str(known.chance), "unit": known.unit, "reference": known.reference, "variant": variant,
            }  # fmt: skip
    return {"sets": compared.sets, "not_computed": compared.not_computed, "metrics": metrics}
