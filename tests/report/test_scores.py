"""Scores: metrics beyond the known ones, the forest plot, and what was not computed."""

from typing import Any

from neurocanvas.report.sections import forest, metric_tables, retrieval_table, set_table

SCORE = {"value": 0.78, "low": 0.72, "high": 0.81, "p": 0.0005, "chance": 0.5, "place": 0.6}


def entry(subject: str, arm: str, value: float, p_holm: float | None) -> dict[str, Any]:
    return {
        "subject": subject, "arm": arm, "metric": "two_way", "n": 144, "value": value, "low": value - 0.05,
        "high": value + 0.05, "p": 0.01, "p_holm": p_holm,
    }  # fmt: skip


def test_a_further_metric_brings_its_own_words() -> None:
    said = {"title": "SwAV", "direction": "lower", "chance": "the mean over permuted pairs", "reference": "Scotti 2023",
            "variant": "mindeye"}  # fmt: skip
    summary = {"arms": {"eeg": {"swav": SCORE, "two_way": SCORE}}, "metrics": {"swav": said}}
    known, further = metric_tables(summary, ["eeg"], 50)
    assert known["title"] == "Two-way identification" and further["title"] == "SwAV"
    assert further["meaning"] == "lower is better; chance: the mean over permuted pairs; as in mindeye; Scotti 2023"
    assert further["rows"][0]["value"] == "0.780"
    said |= {"unit": "share", "chance": "0.5", "direction": "higher"}
    further = metric_tables(summary, ["eeg"], 50)[1]
    assert further["rows"][0]["value"] == "78.0\N{NO-BREAK SPACE}%"
    assert further["meaning"] == "higher is better; as in mindeye; Scotti 2023"  # chance has a column


def test_what_was_not_measured_is_a_dash() -> None:
    [table] = metric_tables({"arms": {"eeg": {"fid-2048": {"value": 143.27}}}}, ["eeg"], 50)
    row = table["rows"][0]
    assert (row["value"], row["interval"], row["chance"], row["p"], row["place"]) == ("143.3", "–", "–", "–", "–")


def test_the_forest_has_a_row_per_subject_and_the_pooled_score() -> None:
    entries = [entry("0", "eeg", 0.8, 0.001), entry("1", "eeg", 0.6, 0.4), entry("0", "shuffled", 0.5, None),
               entry("1", "shuffled", 0.51, None), entry("0", "oracle", 0.9, 0.001)]  # fmt: skip
    arms = {"eeg": {"two_way": SCORE}, "shuffled": {"two_way": {**SCORE, "value": 0.5}}, "oracle": {"two_way": SCORE}}
    found = forest({"arms": arms, "forest": entries}, ["eeg", "shuffled", "oracle"])
    assert found["arm"] == "eeg" and found["arms"] == ["eeg", "shuffled"]
    assert [(row["name"], row["value"], row["p_holm"]) for row in found["rows"]] == [
        ("Subject 0", "80.0\N{NO-BREAK SPACE}%", ".001"), ("Subject 1", "60.0\N{NO-BREAK SPACE}%", ".40"),
    ]  # fmt: skip
    assert found["pooled"]["value"] == "78.0\N{NO-BREAK SPACE}%" and found["pooled"]["interval"] == "72.0 – 81.0"
    assert found["sentence"] == "1 of 2 subjects above chance"
    assert 'x="80.00%"' in found["rows"][0]["strip"]


def test_one_subject_is_not_pooled_and_no_entries_make_no_plot() -> None:
    summary = {"arms": {"eeg": {"two_way": SCORE}}, "forest": [entry("3", "eeg", 0.8, None)]}
    found = forest(summary, ["eeg"])
    assert found["pooled"] is None and found["sentence"] == ""
    assert found["rows"][0]["p_holm"] == "–"
    assert forest({"arms": {}}, ["eeg"]) is None


def test_values_of_whole_sets_stand_by_arm() -> None:
    sets = {"eeg": {"fid": {"value": 143.27, "n_generated": 144}}, "mean": {}, "oracle": {"kid": {"value": 0.01}}}
    said = {"fid": {"title": "FID", "direction": "lower"}}
    found = set_table({"sets": sets, "metrics": said}, ["eeg", "mean", "oracle"])
    assert found["header"] == ["metric", "eeg", "oracle", "n"]
    assert found["lines"] == [["FID", "143.3", "–", "144"], ["KID", "–", "0.010", "–"]]
    assert found["notes"] == ["FID: lower is better"]
    assert set_table({"sets": {"eeg": {}}}, ["eeg"]) is None and set_table({}, ["eeg"]) is None


def test_rules_of_retrieval_say_whether_they_see_all_trials() -> None:
    one = {"n_trials": 9, "n_pictures": 9, "top1": 0.36, "chance1": 0.005, "top5": 0.725, "chance5": 0.025,
           "median_rank": 3.0, "space": "image targets, 1 x 1024"}  # fmt: skip
    rules = {"greedy": {**one, "transductive": False}, "csls": {**one, "transductive": True}}
    found = retrieval_table({"retrieval": rules})
    assert [(line[0], line[1], line[-2], line[-1]) for line in found["lines"]] == [
        ("greedy", "36.0\N{NO-BREAK SPACE}%", "3", "no"), ("csls", "36.0\N{NO-BREAK SPACE}%", "3", "yes"),
    ]  # fmt: skip
    assert found["space"] == "image targets, 1 x 1024"
    assert retrieval_table({}) is None and retrieval_table({"retrieval": {}}) is None
