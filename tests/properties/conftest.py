"""How hard the property tests look: few examples in `make test`, many where NEUROCANVAS_EXAMPLES names a number."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "neurocanvas", deadline=None, derandomize=True, database=None,
    max_examples=int(os.environ.get("NEUROCANVAS_EXAMPLES", "15")), suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)  # fmt: skip
settings.load_profile("neurocanvas")
