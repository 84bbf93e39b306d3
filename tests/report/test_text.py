"""Every code has a sentence; no decision is taken by reading one; a row of a registry brings its words."""

import re
from pathlib import Path
from string import Formatter

import pytest

import neurocanvas
from neurocanvas.audit.controls.registry import CONTROLS, Control
from neurocanvas.evaluation.metrics import METRICS, Metric
from neurocanvas.findings import CODES, finding, listed, read_findings
from neurocanvas.generation.arms import ARMS, Arm
from neurocanvas.report.page import write_report
from neurocanvas.report.sections import metric_tables
from neurocanvas.report.text import DERIVED, SENTENCES, control_sentence, sentence, shown

SOURCES = sorted(Path(neurocanvas.__file__).parent.rglob("*.py"))
SAMPLES = {
    "metric": "accuracy", "model": "svm", "design": "block", "selection": "validation", "stage": "train",
    "column": "subject", "file": "s0", "unit": "trials", "arm": "mean", "fired": "noise-eeg", "loose": "",
    "worst": "noise-eeg", "decoder": "shrinkage LDA", "steps": "CSLS", "step": "CSLS", "rules": "csls",
    "alone": "greedy",
    "table": "a.csv", "columns": "x", "first": "a", "second": "b", "path": "p", "source": "s",
}  # fmt: skip


def sample(code):
    """A finding with all of its numbers."""
    return finding(code, **{name: SAMPLES.get(name, 1) for name in CODES[code][1].split()})


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_sentence_whose_fields_exist(code):
    fields = {field for _, field, _, _ in Formatter().parse(SENTENCES[code]) if field}
    assert fields <= {*CODES[code][1].split(), *DERIVED}
    said = sentence(sample(code))
    assert said and not re.search(r"[{}]|  |None", said)
    assert read_findings(listed([sample(code)])) == (sample(code),)


def test_there_is_no_sentence_without_a_code_and_no_code_that_nothing_emits():
    assert SENTENCES.keys() == CODES.keys()
    said = "\n".join(
        path.read_text(encoding="utf-8") for path in SOURCES if path.name not in ("findings.py", "text.py")
    )
    needs = {f"no-{need.replace('_', '-')}" for control in CONTROLS.values() for need in control.needs}
    assert not [code for code in CODES if f'"{code}"' not in said and code not in needs]
    emitted = set(re.findall(r'finding\(\s*"([a-z-]+)"', said))
    assert emitted <= CODES.keys()


def test_wrong_numbers_and_unknown_codes_are_refused():
    with pytest.raises(TypeError, match="few-units: has n unit; got p"):
        finding("few-units", p=1)
    for rows in (
        [{"code": "no-such", "numbers": {}}],
        [{"code": "few-units", "numbers": {"x": 1}}],
        [[1]],
        {"a": 1},
        3,
    ):
        with pytest.raises(ValueError, match="findings must be"):
            read_findings(rows)


def test_the_gravest_comes_first_and_each_once():
    found = [finding("few-units", n=3, unit="trials"), finding("blocked-design"), finding("blocked-design")]
    assert [one["code"] for one in listed(found)] == ["blocked-design", "few-units"]


READING = re.compile(
    r"""(?:said|text|sentence|warning|verdict|words)\w*(?:\[[^\]]*\])?\.(?:lower\(\)\.)?(?:startswith|endswith|find)\("""
    r"""|"[A-Za-z][^"]* [^"]*" in (?:said|text|sentence|warning|verdict|words)\w*"""
)


def test_no_decision_is_taken_by_reading_a_sentence():
    parts = ("audit", "report", "evaluation", "pipeline", "data", "training")
    found = [
        f"{path.name}: {line.strip()}"
        for path in SOURCES
        if path.parent.name in parts or path.parent.parent.name in parts
        for line in path.read_text(encoding="utf-8").splitlines()
        if READING.search(line) and "text.startswith((" not in line  # how a number is written
    ]
    assert not found
    assert READING.search('if warning.startswith("Block")') and READING.search('"too high" in verdict["text"]')


def test_rows_of_registries_bring_their_words(monkeypatch, make_run):
    monkeypatch.setitem(ARMS, "toy-arm", Arm(lambda inputs: inputs.mean, "Made from toys."))
    monkeypatch.setitem(
        METRICS, "toy_metric", Metric("toy metric", "higher", 0.5, "share", "nobody", meaning="how toy")
    )
    row = Control(lambda inputs, rng: None, "Is it a toy?", "", "", (), "", "", "{some} of it is a toy", "it is no toy")
    monkeypatch.setitem(CONTROLS, "toy", row)
    score = {"value": 0.7, "low": 0.6, "high": 0.8, "p": 0.01, "chance": 0.5}
    summary = {"arms": {"toy-arm": {"toy_metric": score}}, "n_trials": 1, "n_pictures": 1, "unit": "trials",
               "exchanged": "trials", "findings": []}  # fmt: skip
    [table] = metric_tables(summary, ["toy-arm"], 50)
    assert (table["title"], table["meaning"]) == ("Toy metric", "how toy") and "70.0" in table["rows"][0]["value"]
    [(_, header, [line])], _ = shown("evaluate", summary)
    assert header[1] == "toy-arm" and line[:2] == ["toy_metric", ".70 .60 .80"]
    outcome = {"control": "toy", "fired": True, "share": 0.9, "subjects": None, "reasons": []}
    assert control_sentence(outcome) == "most of it is a toy"
    page = write_report(make_run(n_trials=6, levels={"eeg": 0.8, "shuffled": 0.5, "toy-arm": 0.6})).read_text()
    assert "Made from toys." in page and '<g class="mark toy-arm"><path' in page
