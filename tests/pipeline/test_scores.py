"""The stages evaluate and controls: further metrics, numbers behind figures, images made elsewhere, the audit."""

from __future__ import annotations

import csv
import html
import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics.pairwise import cosine_similarity
from tiny import tiny_settings, write_true_captions, written_files

from neurocanvas.audit.controls.registry import CONTROLS
from neurocanvas.audit.variants import pixels_of_pairs
from neurocanvas.config import load_settings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.feature_networks import NotComputed
from neurocanvas.pipeline import evaluate as comparing
from neurocanvas.pipeline.run import RunFolder, read_pictures
from neurocanvas.pipeline.train import decoders_of, read_inputs
from neurocanvas.report.text import controls_verdict
from neurocanvas.workflow import STAGES, fork, run_stage


def table(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def summary(folder):
    return json.loads((folder / "scores" / "summary.json").read_text())


def test_numbers_behind_the_figures_are_written(tiny_run):
    found, scores = summary(tiny_run), tiny_run / "scores"
    assert {(row["arm"], row["subject"]) for row in found["forest"]} == {(arm, "0") for arm in found["arms"]}
    one = next(row for row in found["forest"] if row["arm"] == "eeg")
    assert one["value"] == found["arms"]["eeg"]["two_way"]["value"] and one["p"] == found["arms"]["eeg"]["two_way"]["p"]
    counts = [row for row in table(scores / "confusion.csv") if row["arm"] == "oracle"]
    assert sum(int(row["count"]) for row in counts) == 8
    right = sum(int(row["count"]) for row in counts if row["true"] == row["named"])
    assert np.isclose(right / 8, found["arms"]["oracle"]["concept_top1"]["value"])
    order = table(scores / "concept_order.csv")
    assert sorted(int(row["semantic"]) for row in order) == [0, 1, 2, 3] and {row["block"] for row in order} == {""}
    importance = table(scores / "importance.csv")
    assert len(importance) == 2 * (62 + 5) and {row["group"] for row in importance} == {"electrode", "band"}
    assert found["sets"]["eeg"]["effective_rank"]["value"] >= 1 and found["sets"]["oracle"]["mean_cosine"]["value"] < 1


def test_missing_weights_are_said_and_nothing_takes_their_place(tiny_run):
    found = summary(tiny_run)
    assert {"alexnet2", "dinov2", "swav", "lpips", "fid-2048", "top1-of-50"} <= set(found["not_computed"])
    assert all(found["not_computed"].values())
    assert not {"alexnet2", "dinov2", "lpips"} & set(found["arms"]["eeg"])


def test_pixels_are_compared_as_mindeye_does(tiny_run):
    found = summary(tiny_run)["arms"]["oracle"]
    entries = [json.loads(line) for line in (tiny_run / "images" / "manifest.jsonl").read_text().splitlines()]
    mine = [entry for entry in entries if entry["arm"] == "oracle"]
    drawn = read_pictures(tiny_run / "images" / entry["file"] for entry in mine)
    seen = read_pictures(tiny_run / "images" / "seen" / f"{entry['stimulus']}.png" for entry in mine)
    for metric, values in zip(("pixcorr", "ssim"), pixels_of_pairs(drawn, seen).T, strict=True):
        assert np.isclose(found[f"{metric}@mindeye"]["value"], values.mean())
        assert found[f"{metric}@mindeye"]["p"] is None and found[f"{metric}@mindeye"]["chance"] is None


@pytest.fixture
def networks(monkeypatch):
    """Every network gives the mean colours of 25 parts of an image; LPIPS is missing."""

    def load(network, *, folder, download):
        if network.title.startswith("LPIPS"):
            raise NotComputed("no such file")
        asked.append((network.title, folder, download))
        return prepare, lambda pixels: (pixels.float(),)

    def prepare(pictures):
        pixels = torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2).float()
        return torch.nn.functional.adaptive_avg_pool2d(pixels, 5).flatten(1)

    asked = []
    monkeypatch.setattr("neurocanvas.evaluation.feature_networks.load_network", load)
    return asked


def test_networks_that_are_here_score_every_arm(tiny_copy, networks):
    run_stage(RunFolder(tiny_copy, tiny_settings()), "evaluate")
    found = summary(tiny_copy)
    assert found["not_computed"] == {"lpips": "no such file"}
    for arm, scores in found["arms"].items():
        assert scores["alexnet2"] == scores["dinov2"]  # the same features here
        assert scores["alexnet2"]["chance"] == 0.5 and 0 < scores["alexnet2"]["p"] <= 1
        assert 0 <= scores["swav"]["low"] <= scores["swav"]["value"] <= scores["swav"]["high"] <= 2, arm
        assert "p_vs_shuffled" in scores["swav"] or arm != "eeg"
    close = found["arms"]["oracle"]["swav"]
    assert close["value"] < close["chance"]  # a distance: less is better, and so is its p
    assert close["p"] < 0.5 < found["arms"]["oracle"]["alexnet2"]["value"]
    assert found["metrics"]["swav"]["direction"] == "lower" and found["metrics"]["dinov2"]["reference"]
    assert found["sets"]["oracle"]["kid"]["n_seen"] == 8
    assert {download for *_, download in networks} == {False}
    networks.clear()
    run_stage(RunFolder(tiny_copy, tiny_settings()), "evaluate")
    assert networks == [] and summary(tiny_copy) == found


def test_what_was_computed_of_a_picture_is_not_computed_again(tiny_copy, monkeypatch):
    counts = Counter()

    def count(module, name, size):
        original = getattr(module, name)

        def counting(*args, **how):
            counts[name] += size(args)
            return original(*args, **how)

        monkeypatch.setattr(module, name, counting)

    count(comparing, "_judge", lambda args: len(args[1][0]))
    count(comparing, "judge_texts", lambda args: len(args[0]))
    count(comparing, "_pixel_table", lambda args: len(args[1][0]) * len(args[1][1]))
    count(comparing, "pixels_of_pairs", lambda args: len(args[0]))
    before = written_files(tiny_copy)
    run_stage(RunFolder(tiny_copy, tiny_settings()), "evaluate")
    assert not counts and written_files(tiny_copy) == before
    one = next((tiny_copy / "images" / "s0" / "eeg").glob("*.png"))
    shutil.copy(next((tiny_copy / "images" / "s0" / "oracle").glob("*.png")), one)
    run_stage(RunFolder(tiny_copy, tiny_settings()), "evaluate")
    # a cell of 8 images and the pair that the variant compares; the judge has seen the other arm's image
    assert counts == {"_pixel_table": 8, "pixels_of_pairs": 1}
    changed = written_files(tiny_copy)
    assert changed["scores/summary.json"] != before["scores/summary.json"]
    Image.fromarray(255 - read_pictures([one])[0]).save(one)
    counts.clear()
    other, settings = tiny_copy.with_name("other"), tiny_settings(evaluate={"variant": "ozcelik"})
    fork(tiny_copy, other, settings)
    run_stage(RunFolder(other, settings), "evaluate")
    assert counts == {"_judge": 1, "_pixel_table": 8, "pixels_of_pairs": 4 * 8}


def test_metrics_that_are_named_may_be_fetched_and_others_are_left_out(tiny_copy, networks, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    run_stage(RunFolder(tiny_copy, tiny_settings(evaluate={"metrics": ["clip", "swav"], "weights": "/w"})), "evaluate")
    assert networks[:2] == [("CLIP ViT-L/14", "/w/clip-vit-large-patch14", True), ("SwAV ResNet-50", "/w", True)]
    assert {"clip", "swav"} < set(summary(tiny_copy)["arms"]["eeg"]) and summary(tiny_copy)["not_computed"] == {}
    with pytest.raises(NeuroCanvasError, match=r"evaluate.metrics.*alexnet2.*got 'two_way'"):
        run_stage(RunFolder(tiny_copy, tiny_settings(evaluate={"metrics": ["two_way"]})), "evaluate")


def test_another_variant_counts_pairs_its_own_way(tiny_fork, networks):
    run = tiny_fork(evaluate={"variant": "enigma"})
    tiny_copy, _ = run.folder, run_stage(run, "evaluate")
    found = summary(tiny_copy)["arms"]["oracle"]
    assert {"ssim@enigma", "alexnet2@enigma", "swav@enigma", "dinov2@enigma"} <= set(found)
    assert found["alexnet2@enigma"]["value"] <= 6 / 7 + 1e-9  # one is taken off
    assert 0 <= found["swav@enigma"]["value"] <= 2


def test_the_upper_half_is_that_of_the_judges_ranking(tiny_fork):
    run = tiny_fork(evaluate={"variant": "crosspt-upper-half"})
    tiny_copy, _ = run.folder, run_stage(run, "evaluate")
    found = summary(tiny_copy)
    assert found["arms"]["oracle"]["upper_half@crosspt-upper-half"]["value"] > 0.6  # two steps
    assert found["metrics"]["upper_half@crosspt-upper-half"]["reference"].startswith("CrossPT")
    assert "dinov2" in found["not_computed"]  # the second judge is always listed


def test_the_second_judge_is_listed_whatever_was_asked_for(tiny_copy, tiny_fork, networks):
    run_stage(RunFolder(tiny_copy, tiny_settings(evaluate={"metrics": ["swav"]})), "evaluate")
    assert "dinov2" in summary(tiny_copy)["arms"]["eeg"]
    assert {title: download for title, _, download in networks}["DINOv2 base"] is False
    with pytest.raises(NeuroCanvasError, match="--metrics: says which networks the variant mindeye asks; bread has"):
        run_stage(tiny_fork(evaluate={"metrics": ["swav"], "variant": "bread"}), "evaluate")


def test_controls_go_to_one_table(tiny_copy):
    run = RunFolder(tiny_copy, tiny_settings(controls={"permutations": 19, "repeats": 1}))
    run_stage(run, "controls")
    found = json.loads((tiny_copy / "scores" / "controls.json").read_text())
    assert [row["control"] for row in found["rows"]] == list(CONTROLS) and found["overall"]["numbers"]["computed"]
    by_name = {row["control"]: row for row in found["rows"]}
    assert by_name["null-generators"]["fired"] is not None and by_name["baseline-window"]["fired"] is not None
    assert len(table(tiny_copy / "scores" / "controls.csv")) == len(CONTROLS)
    run_stage(run, "report")
    assert controls_verdict(found) in html.unescape((tiny_copy / "report.html").read_text())


def test_pictures_made_elsewhere_get_the_scores_of_our_own(tiny_run, theirs):
    theirs.score()
    ours, given = summary(tiny_run)["arms"]["oracle"], summary(theirs.folder)["arms"]["given"]
    assert ours.keys() == given.keys()
    for metric, score in ours.items():
        assert np.isclose(score["value"], given[metric]["value"]), metric
    shuffled = summary(theirs.folder)["arms"]["shuffled"]["two_way"]
    assert shuffled["value"] < given["two_way"]["value"] and "p_vs_shuffled" in given["two_way"]
    with pytest.raises(NeuroCanvasError, match="have no page"):
        run_stage(RunFolder(theirs.folder, load_settings(theirs.folder / "run.toml")), "report")


def test_a_run_of_its_own_is_not_written_over(tiny_copy, theirs):
    before = (tiny_copy / "scores" / "summary.json").read_bytes()
    with pytest.raises(NeuroCanvasError, match=r"was made with .*neurocanvas fork"):
        theirs.score(tiny_copy)
    assert (tiny_copy / "scores" / "summary.json").read_bytes() == before
    assert load_settings(tiny_copy / "run.toml").evaluate.against == ""


def test_without_concepts_or_table_what_can_be_scored_is(theirs):
    theirs.score(header=("image", "against"))
    found = summary(theirs.folder)
    assert "concept_top1" not in found["arms"]["given"] and found["concepts"] == {}
    with pytest.raises(NeuroCanvasError, match="no file of the same name in the other folder"):
        theirs.score(theirs.folder.with_name("unpaired"), pairs="")


def test_concepts_in_blocks_are_exchanged_as_blocks(theirs):
    theirs.score(rows=theirs.blocks())
    found = summary(theirs.folder)
    assert found["exchanged"] == "blocks" and found["findings"][0]["code"] == "blocked-design"


def test_wnids_are_judged_by_their_names_and_unknown_ones_refused(theirs):
    rows = [(name, seen, concept) for name, seen, concept, _ in theirs.blocks()]
    scores = []
    for wnids in ({}, {"mug": "n03063599", "banana": "n07753592"}):
        named = [(*row[:2], wnids.get(row[2], row[2])) for row in rows]
        theirs.score(header=("image", "against", "concept"), rows=named, judge_anyway=True)
        scores.append(summary(theirs.folder)["arms"]["given"]["concept_top1"]["value"])
    named = {"n03063599": "coffee mug", "n07753592": "banana"}
    assert {key: one["name"] for key, one in summary(theirs.folder)["concepts"].items()} == named
    assert scores[1] >= scores[0] - 0.2, "names and wnids are one concept to the judge"
    with pytest.raises(NeuroCanvasError, match=r"pairs\.csv: concept: no name of n00000001 is known"):
        theirs.score(header=("image", "against", "concept"), rows=[(*row[:2], "n00000001") for row in rows])


def test_samples_of_one_trial_are_one_unit(theirs):
    rows = [(name, seen, str(place // 3)) for place, (name, seen, *_) in enumerate(theirs.blocks())]
    theirs.score(header=("image", "against", "trial"), rows=rows)
    found = summary(theirs.folder)
    assert {"rows": 24, "trials": 8} in [one["numbers"] for one in found["findings"]] and found["exchanged"] == "images"


@pytest.mark.parametrize("weights", [(), (3.0, 1.0, 0.5)], ids=["plain", "tokens weighted"])
def test_predictions_retrieve_in_the_whole_target_space(tiny_fork, weights):
    run = tiny_fork(encoder={"token_weights": weights})
    tiny_copy = run.folder
    for stage in ("train", "predict", "generate", "evaluate") if weights else ():
        run_stage(run, stage)
    found, [decoder] = summary(tiny_copy)["retrieval"], decoders_of(run, "0")
    features = read_inputs(run, "0")[run.split("0")[0].test]
    mean = decoder.basis_.mean.reshape(1, -1)
    predicted = decoder.basis_.inverse(decoder.network_outputs(features)).reshape(len(features), -1) - mean
    assert list(found) == ["greedy", "hungarian", "csls", "centred greedy", "centred hungarian", "centred csls"]
    assert {rule for rule, one in found.items() if not one["transductive"]} == {"greedy"}
    assert {(one["space"], one["n_trials"], one["n_pictures"], one["chance1"]) for one in found.values()} == {
        ("clip-text targets, 77 x 768", 8, 8, 1 / 8)
    }
    sidecar = json.loads((tiny_copy / "predictions" / "s0.npy.json").read_text())
    rows, concept = (run.subjects["0"][sidecar["trials"]], run.subjects["0"].column("concept")[sidecar["trials"]])
    seen = np.searchsorted(run.stimuli, rows.column("image"))
    targets = np.asarray(run.targets("clip-text")[seen], np.float64).reshape(8, -1)
    targets = targets - mean
    for centring, name in (("training mean", "greedy"), ("test means", "centred greedy")):
        ours, theirs = (values - values.mean(axis=0) * (centring == "test means") for values in (predicted, targets))
        expected = cosine_similarity(ours, theirs)
        place = np.argsort(np.argsort(-expected, axis=1), axis=1).diagonal()
        assert [found[name][k] for k in ("top1", "top5")] == [np.mean(place < 1), np.mean(place < 5)]
        assert found[name]["median_rank"] == np.median(place) + 1
        right = concept[expected.argmax(axis=1)] == concept
        assert np.isclose(found[name]["concept_accuracy"], np.mean(right)) and found[name]["centring"] == centring


def test_an_encoder_that_says_nothing_retrieves_nothing(tiny_fork):
    run = tiny_fork(encoder={"name": "mean"})
    tiny_copy = run.folder
    for name in ("train", "predict", "generate", "evaluate"):
        run_stage(run, name)
    found = summary(tiny_copy)
    assert found["retrieval"] == {} and found["sets"]["eeg"]["effective_rank"]["value"] == 0
    assert "mean_cosine" not in found["sets"]["eeg"] and "mean_cosine" in found["sets"]["oracle"]


def test_repeated_pictures_are_retrieved_without_the_rule_that_cannot(tmp_path):
    settings = tiny_settings(simulate={"concepts": 4, "trials_per_concept": 6, "repeats": 2})
    run = RunFolder(tmp_path, settings)
    run_stage(run, "simulate")
    write_true_captions(run)
    for name in list(STAGES)[1:]:
        run_stage(run, name)
    found = summary(tmp_path)["retrieval"]
    assert "hungarian" not in found and found["greedy"]["n_trials"] == 16 and found["greedy"]["n_pictures"] == 8


@pytest.mark.parametrize("anyway", [False, True])
def test_a_judge_that_does_not_recognise_the_seen_photographs_is_left_out(anyway, tmp_path, test_data):
    photographs = sorted((test_data / "imagenet_pictures").glob("*.JPEG"))[:24]
    made, seen, rows = tmp_path / "made", tmp_path / "seen", ["image,against,concept"]
    for folder in (made, seen):
        folder.mkdir()
    for path in photographs:
        for folder in (made, seen):
            Image.open(path).convert("RGB").resize((64, 64)).save(folder / f"{path.stem}.png")
        rows.append(f"{path.stem}.png,{path.stem}.png,{path.stem.split('_', 1)[1].replace('_', ' ')}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    evaluate = {
        "against": str(seen), "pairs": str(tmp_path / "pairs.csv"), "permutations": 19, "resamples": 100,
        "judge_anyway": anyway,
    }  # fmt: skip
    settings = load_settings(None, data={"pictures": str(made)}, evaluate=evaluate)
    run_stage(RunFolder(tmp_path / "run", settings), "evaluate")
    found = summary(tmp_path / "run")
    code = "judge-poor" if anyway else "judge-left-out"
    [one] = [one for one in found["findings"] if one["code"] == code]
    assert one["numbers"]["accuracy"] < 0.5 and found["judge"]["name"] == "bundled"
    assert ("two_way" in found["arms"]["given"]) == anyway == found["judge"]["used"]
    assert found["arms"]["given"]["pixcorr"]["value"] == pytest.approx(1)
