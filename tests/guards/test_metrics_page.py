"""docs/metrics.md says what the code has."""

from __future__ import annotations

import metrics_page


def test_the_page_is_current():
    assert metrics_page.PAGE.read_text(encoding="utf-8") == metrics_page.page(), "run python tools/metrics_page.py"
