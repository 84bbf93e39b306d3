"""Write docs/metrics.md: every metric and every variant, as the code has them (`python tools/metrics_page.py`)."""

from __future__ import annotations

from pathlib import Path

from neurocanvas.evaluation.metrics import METRICS
from neurocanvas.evaluation.networks import FEATURE_NETWORKS
from neurocanvas.evaluation.retrieval import ASSIGNMENT_RULES
from neurocanvas.evaluation.variants import VARIANTS

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"


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
        "What a variant computes carries its name: `ssim@mindeye`, `upper_half@crosspt-upper-half`. Retrieval, its "
        "median rank and concept accuracy stand in `scores/summary.json` under `retrieval`, by assignment rule; FID, "
        "KID, IS and diversity under `sets`.",
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
        "## Assignment rules of retrieval",
        _table(
            ("rule", "transductive", "defined by"),
            [(f"`{key}`", "yes" if one.transductive else "no", one.reference) for key, one in ASSIGNMENT_RULES.items()],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A table of Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
