"""Write docs/metrics.md: every metric and every variant, as the code has them (`python tools/metrics_page.py`)."""

from __future__ import annotations

from pathlib import Path

from neurocanvas.audit.variants import VARIANTS
from neurocanvas.evaluation.feature_networks import FEATURE_NETWORKS
from neurocanvas.evaluation.metrics import METRICS
from neurocanvas.evaluation.retrieval import ASSIGNMENT_RULES
from neurocanvas.evaluation.statistics import OTHERS

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"

PIXELS = f"""\
A generated image is compared with the seen one and with at most {OTHERS} others, so the cost per image does not depend on the
number of images. Exchangeable units (trials, or whole blocks in block designs) are partitioned at random, with `evaluate.seed`, into
cells of at most {OTHERS + 1} within each subject and fold (in block designs within each subject). Every image is compared with the
seen image and, in a full cell, with {OTHERS} derangements.

- **Chance** is the mean over trials of each trial's mean with the other images of its cell. It depends a little on the
  partition; this variation falls with the square root of the number of trials.
- **p** comes from `evaluate.permutations` permutations within cells. These are a subgroup of the permutations within subject
  and fold, and the partition is drawn without looking at any score, so p is exact, (1 + b) / (1 + n), and as fine as that
  of the other metrics. The test has a little less power than one with all pairs.
- With {OTHERS + 1} units or fewer there is one cell, and all exchangeable pairs are computed.

Metrics with an `@`, LPIPS and 50-way top-1 are computed for the true pairs alone: no chance level, no p against permutations."""

RETRIEVAL = """\
What the encoder itself gives is compared with the targets of all test images in the whole target space (77 x 768 numbers for
`clip-text`) by cosine similarity, as in NICE and ATM, around the mean training target, as in the contrastive loss. Images are
drawn from another output of a contrastive encoder, the posterior mean of the targets (least squared error), which retrieves
worse. The same rules are also applied after subtracting the mean prediction and the mean target of the gallery
(`centred ...`). These means depend on all test trials, so these rows are transductive. `scores/summary.json` names rule, centring and space of every row. On ATM-S
outputs of THINGS-EEG2, subject 8, 200 images, top-1 / top-5 are .360 / .725 greedy, .490 / .815 with CSLS, .430 / .765 centred,
.550 / .835 centred with CSLS, and .700 top-1 with Hungarian assignment (`tests/evaluation/test_retrieval.py`).
Two-way identification among targets (importance) uses cosines around the mean training target; it is computed in coordinates
with the whole length of each target, which gives the same numbers as the whole space."""


def page() -> str:
    """The page."""
    parts = [
        "# Metrics",
        "Written by `python tools/metrics_page.py` from the tables in `src/neurocanvas/evaluation`.",
        "## What is measured",
        _table(
            ("name", "metric", "better", "chance", "unit", "networks", "defined by"),
            [
                (f"`{key}`", one.title, one.better, one.chance, one.unit, ", ".join(one.networks) or "–", one.reference)
                for key, one in METRICS.items()
            ],
        ),
        "Scores of a variant carry its name: `ssim@mindeye`, `upper_half@crosspt-upper-half`. Retrieval, its "
        "median rank and concept accuracy are in `scores/summary.json` under `retrieval`, by assignment rule; FID, "
        "KID, IS and diversity under `sets`.",
        "## Chance and p of PixCorr and SSIM",
        PIXELS,
        "## Feature networks",
        _table(
            ("name", "network", "from", "layer", "note"),
            [
                (f"`{name}`", one.title, f"{one.library}: `{one.source}`", ", ".join(one.layers), one.note or "–")
                for name, one in FEATURE_NETWORKS.items()
            ],
        ),
        "## Variants: one name, several programs",
        _table(
            ("variant", "program", "what differs"),
            [(f"`{name}`", one.reference, one.differs) for name, one in VARIANTS.items()],
        ),
        "## Retrieval",
        RETRIEVAL,
        _table(
            ("rule", "transductive", "defined by"),
            [(f"`{key}`", "yes" if together else "no", said) for key, (together, said) in ASSIGNMENT_RULES.items()],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A table of Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
