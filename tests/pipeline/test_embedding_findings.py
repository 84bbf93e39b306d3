"""Captions that are cut off, and images whose embeddings are equal although they differ, are said."""

import pytest

from neurocanvas.artifacts import read_sidecar
from neurocanvas.cli import main
from neurocanvas.targets.captions import write_captions
from neurocanvas.workflow import run_stage

LEAD = "a very detailed photograph with many things in it, " * 9  # more than 77 tokens


@pytest.mark.parametrize(("captions", "cut", "equal"), [
    (lambda n: f"{LEAD} and at last {n}", "all", "all"),
    (lambda n: f"{n} {LEAD}", "all", 0),
    (lambda n: "a cat", 0, 0),  # one caption has one embedding
    (lambda n: {3: "A CAT", 5: "a cat"}.get(n, f"a cat and {n} dogs"), 0, 2),
])  # fmt: skip
def test_embed_reports_what_no_decoder_can_learn(tiny_fork, tmp_path, monkeypatch, capsys, captions, cut, equal):
    source = tmp_path / "mine.txt"
    run = tiny_fork(caption={"source": str(source)}, encoder={"name": "ridge", "baselines": []})
    ids = run.stimuli
    write_captions(source, {name: captions(n) for n, name in enumerate(ids)})
    run_stage(run, "caption")
    monkeypatch.setattr("sys.argv", ["neurocanvas", "embed", "-o", str(run.folder)])
    main()
    said, [path] = " ".join(capsys.readouterr().out.split()), run_stage(run, "embed")
    found = {row["code"]: row["numbers"] for row in read_sidecar(path)["findings"]}
    n = len(ids)
    for code, count, words in (
        ("captions-cut", cut, "have more than 77 tokens"), ("equal-embeddings", equal, "no decoder can tell them apart")
    ):  # fmt: skip
        assert (code in found) == (words in said) == bool(count)
        assert not count or (found[code]["n"], found[code]["of"]) == (n if count == "all" else count, n)
    if equal == 2:
        assert (found["equal-embeddings"]["first"], found["equal-embeddings"]["second"]) == (ids[3], ids[5])
        [model] = run_stage(run, "train")  # what it learns is said beside its scores
        assert [row["code"] for row in read_sidecar(model)["findings"]] == ["equal-embeddings"]
