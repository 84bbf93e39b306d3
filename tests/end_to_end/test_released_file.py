"""A file in the released layout, all the way through the documented commands: from inspect to the report."""

from __future__ import annotations

import numpy as np


def test_a_file_in_the_released_layout_goes_all_the_way(ask, tmp_path):
    data, store, run = tmp_path / "data", tmp_path / "store", tmp_path / "run"
    split = ["--protocol", "released", "--accept-block-confound"]

    ask("simulate", "-o", data, "--design", "block", "--subjects", "2", "--concepts", "3")
    assert ask("inspect", "-d", data)["trials"] == 300
    ask("convert", "-d", data, "-o", store)
    ask("features", "-d", store, "--images", data, "-s", "-1", "-o", run, "--method", "eeg-imagenet")
    found = ask("classify", "-o", run, "-m", "ridge,mlp", *split)["scores"]
    assert {row["model"] for row in found["rows"]} == {"ridge", "mlp"}
    assert all(row["subjects"] == ["0", "1"] and row["mean"] > row["chance"] for row in found["rows"])
    found = ask("benchmark", "-o", run, "-m", "ridge", "-g", "all", *split)["scores"]
    assert any(one["severity"] == "serious" for one in found["rows"][0]["findings"])
    for verb in ("caption", "embed"):
        ask(verb, "-o", run)
    table = ask("train", "-o", run, "-b", "40", "--baselines", "ridge,mean", *split)["scores"]
    assert [line[0] for line in table["lines"]] == ["mlp_sd", "ridge", "mean"]
    ask("predict", "-o", run)
    arms = "eeg,shuffled,mean,oracle,caption"
    ask("generate", "-o", run, "-b", "8", "--steps", "2", "--pictures", "6", "--arm", arms)
    scores = ask("evaluate", "-o", run)["scores"]
    assert list(scores["arms"]) == ["eeg", "shuffled", "mean", "oracle"] and scores["n_trials"] == 12
    assert any(one["severity"] == "serious" for one in scores["findings"])
    ask("report", "-o", run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Block design" in page and "Ridge" in page
    assert (run / "generated_from_captions" / "page_001.png").is_file()
    ask("export", "-o", run, "--to", tmp_path / "released")
    assert np.load(tmp_path / "released" / "de_feat" / "1_all_de.npy").shape == (150, 310)
