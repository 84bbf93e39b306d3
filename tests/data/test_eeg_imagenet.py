"""The reader of the released file: what it gives, and what it refuses."""

import zipfile

import numpy as np
import pytest
import torch

from neurocanvas.artifacts import torch_fingerprint
from neurocanvas.config import DataSettings
from neurocanvas.data.eeg_imagenet import granularity_rows, open_eeg_imagenet
from neurocanvas.data.images import IMAGENET_CONCEPTS
from neurocanvas.data.store import convert
from neurocanvas.data.trials import COLUMNS, without_signal
from neurocanvas.errors import NeuroCanvasError

LABELS = list(IMAGENET_CONCEPTS)
DOG, FISH, COARSE = LABELS[0], LABELS[8], LABELS[40]
ALL = DataSettings()


def make_records(subjects=(0, 3), labels=(COARSE, COARSE, DOG, FISH, DOG), scale=1e-5):
    """Trials of noise in the released form."""
    rng = np.random.default_rng(0)
    return [
        {
            "eeg_data": torch.from_numpy(rng.normal(0, scale, (62, 501)).astype(np.float32)),
            "granularity": "coarse" if label == COARSE else "fine",
            "subject": subject,
            "label": label,
            "image": f"{label}_{number}.JPEG",
            "order": number,
        }
        for subject in subjects
        for number, label in enumerate(labels)
    ]


def write(folder, records, name="EEG-ImageNet.pth"):
    """Write a file in the released layout, and return its folder."""
    torch.save({"dataset": records, "labels": LABELS, "images": []}, folder / name)
    return folder


def test_reads_the_table_and_microvolts(tmp_path):
    records = make_records()
    trials = open_eeg_imagenet(write(tmp_path, records), ALL)
    assert list(trials.metadata) == [name for name in COLUMNS if name != "onset"]
    assert trials.names[[0, 9]].tolist() == ["0/0/0000", "3/0/0004"]
    assert trials.column("subject").tolist() == ["0"] * 5 + ["3"] * 5
    assert trials.column("order").tolist() == [0, 1, 2, 3, 4] * 2
    assert trials.column("block").tolist() == [0, 0, 1, 2, 3] * 2
    assert set(trials.column("session")) == set(trials.column("run")) == {"0"}
    assert (trials.spec.sfreq, trials.spec.tmin, len(trials.spec.ch_names)) == (1000.0, 0.0, 62)
    signal = trials.signal([7, 2])
    assert signal.dtype == np.float32 and signal.shape == (2, 62, 501)
    np.testing.assert_allclose(signal[1], records[2]["eeg_data"].numpy() * 1e6, rtol=1e-6)
    assert trials.images.concepts[f"{FISH}_3.JPEG"] == FISH and trials.images.names[FISH] == "goldfish"


def make_stage2(subject=18, labels=(DOG, FISH, DOG, DOG), stages=(20, 30, 30, 20)):
    """Trials of a second day in the released form, the passes out of order."""
    records = make_records(subjects=(subject,), labels=labels)
    return [{**record, "stage": stage} for record, stage in zip(records, stages)]


@pytest.mark.parametrize("alone", [False, True])
def test_stage_2_is_the_second_session_of_the_one_who_came_back(tmp_path, alone):
    if not alone:
        write(tmp_path, make_records(subjects=(0, 3)), "EEG-ImageNet_1.pth")
    write(tmp_path, make_stage2(), "EEG-ImageNet_stage2.pth")
    trials = open_eeg_imagenet(tmp_path, DataSettings(subjects=(0,)))
    day = trials[trials.column("session") == "1"]
    first, first_block = (0, 0) if alone else (5, 4)
    assert len(trials) == len(day) + (0 if alone else 5)
    assert day.column("run").tolist() == ["1", "0", "0", "1"]
    # recorded as: pass of 30 (fish, dog), then pass of 20 (dog, dog); a pass begins a block
    assert (day.column("order") - first).tolist() == [2, 0, 1, 3]
    assert (day.column("block") - first_block).tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"subject": 3}, "subject must be one of 16, 17, 18, 19, 20 in a stage-2 file; got 3"),
     ({"stage": 2}, "stage must be one of 30, 20 in a stage-2 file; got 2")],
)  # fmt: skip
def test_what_a_stage_2_file_cannot_hold(tmp_path, change, message):
    records = make_stage2()
    records[2].update(change)
    with pytest.raises(NeuroCanvasError, match=message):
        open_eeg_imagenet(write(tmp_path, records, "EEG-ImageNet_stage2.pth"), ALL)


def test_a_subject_of_the_missing_half_is_told_where_it_is(tmp_path):
    write(tmp_path, make_records(subjects=(0, 7)), "EEG-ImageNet_1.pth")
    with pytest.raises(NeuroCanvasError, match=r"holds 0, 7; got 9; EEG-ImageNet_2\.pth contains subjects 8-15; place"):
        open_eeg_imagenet(tmp_path, DataSettings(subjects=("9",)))
    with pytest.raises(NeuroCanvasError, match=r"got 17; 17 in EEG-ImageNet_stage2\.pth is session 1 of subject 12"):
        open_eeg_imagenet(tmp_path, DataSettings(subjects=("17",)))


def test_both_released_halves_are_one_data_set_and_a_subject_in_both_is_refused(tmp_path):
    write(tmp_path, make_records(subjects=(3,)), "EEG-ImageNet_1.pth")
    write(tmp_path, make_records(subjects=(8,)), "EEG-ImageNet_2.pth")
    assert np.unique(open_eeg_imagenet(tmp_path, ALL).column("subject")).tolist() == ["3", "8"]
    write(tmp_path, make_records(subjects=(3,)), "EEG-ImageNet_2.pth")
    with pytest.raises(NeuroCanvasError, match=r"_2\.pth: subject 3 is in EEG-ImageNet_1\.pth too"):
        open_eeg_imagenet(tmp_path, ALL)


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [(1, {"label": "n99999999"}, r"trial 1 of subject 0: label 'n99999999' is not among the file's 80 labels"),
     (1, {"granularity": "medium"}, "granularity must be coarse or fine"),
     (1, {"image": "../../x.JPEG"}, "image must be a file name without a folder"),
     (1, {"image": ".."}, "image must be a file name without a folder"),
     (4, {"image": None}, "trial 4: image missing"),
     (1, {"eeg_data": torch.zeros((62, 501), dtype=torch.int16)}, "must be floating-point"),
     *((6, {"eeg_data": torch.full(shape, 1e-5)}, r"trial 6 of subject 3: .*62 channels")
       for shape in ((61, 501), (62, 500), (501, 62)))],
)  # fmt: skip
def test_a_record_that_cannot_be_right_is_named(tmp_path, row, change, message):
    records = make_records()
    records[row] = {name: value for name, value in {**records[row], **change}.items() if value is not None}
    with pytest.raises(NeuroCanvasError, match=message):
        open_eeg_imagenet(write(tmp_path, records), ALL)


def test_a_copy_with_fewer_concepts_keeps_the_groups_and_other_concepts_go_by_eights(tmp_path):
    fruit = LABELS[16]
    fewer = make_records(subjects=(0,), labels=(FISH, fruit, COARSE))
    torch.save({"dataset": fewer, "labels": [COARSE, fruit, FISH], "images": []}, tmp_path / "EEG-ImageNet.pth")
    trials = open_eeg_imagenet(tmp_path, DataSettings(granularity="fine2"))
    assert trials.column("concept").tolist() == [fruit]
    others = np.array([f"n{number:08}" for number in range(12)])
    columns = {"concept": others, "granularity": np.full(12, "fine")}
    assert granularity_rows(without_signal(columns), "fine1").tolist() == [False] * 8 + [True] * 4
    everything = open_eeg_imagenet(tmp_path, ALL)
    assert [granularity_rows(everything, name).tolist() for name in ("coarse", "fine1", "all")] == [
        [False, False, True], [True, False, False], [True, True, True]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("granularity", "concepts"),
    [("coarse", {COARSE}), ("fine0", {DOG}), ("fine1", {FISH}), ("all", {COARSE, DOG, FISH})],
)
def test_granularity_selects_concepts_but_keeps_their_place(tmp_path, granularity, concepts):
    trials = open_eeg_imagenet(write(tmp_path, make_records()), DataSettings(granularity=granularity, subjects=("3",)))
    assert set(trials.column("concept")) == concepts
    if granularity == "fine1":
        assert (trials.column("order").tolist(), trials.column("block").tolist()) == ([3], [2])
    with pytest.raises(NeuroCanvasError, match="no trial of fine4"):
        open_eeg_imagenet(tmp_path, DataSettings(granularity="fine4"))


def test_opening_does_not_read_the_signal(tmp_path, monkeypatch):
    reads = []
    original = torch.Tensor.numpy
    monkeypatch.setattr(torch.Tensor, "numpy", lambda tensor: reads.append(1) or original(tensor))
    trials = open_eeg_imagenet(write(tmp_path, make_records(subjects=range(10))), ALL)
    opened = len(reads)
    trials.signal(slice(0, 4))
    assert (len(trials), opened, len(reads)) == (50, 30, 34), "three trials of each subject, for the unit"


def test_the_source_changes_with_the_file(tmp_path):
    before = open_eeg_imagenet(write(tmp_path, make_records()), ALL).fingerprint()
    assert open_eeg_imagenet(tmp_path, ALL).fingerprint() == before
    after = open_eeg_imagenet(write(tmp_path, make_records(scale=1.1e-5)), ALL).fingerprint()
    assert after != before


def test_the_source_changes_with_a_trial_in_the_middle_of_many(tmp_path):
    # As many records as it takes for a list of checksums beyond one megabyte; shapes are beside the point.
    records = [{"eeg_data": torch.zeros(1), "image": str(number)} for number in range(16_000)]
    path = write(tmp_path, records) / "EEG-ImageNet.pth"
    with zipfile.ZipFile(path) as archive:
        middle = archive.getinfo("EEG-ImageNet/data/2000")
        assert path.stat().st_size - archive.start_dir > 2**20
    before = torch_fingerprint([path], "")
    records[2000]["eeg_data"][0] = 1
    write(tmp_path, records)
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("EEG-ImageNet/data/2000").CRC != middle.CRC
    after = torch_fingerprint([path], "")
    records[2000]["image"] = "2001"
    assert len({before, after, torch_fingerprint([write(tmp_path, records) / path.name], "")}) == 3


@pytest.mark.parametrize("content", [{"model": 1}, [1, 2], {"dataset": [], "labels": LABELS}])
def test_another_pytorch_file_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "EEG-ImageNet.pth")
    with pytest.raises(NeuroCanvasError, match="not an EEG-ImageNet file"):
        open_eeg_imagenet(tmp_path, ALL)


@pytest.mark.parametrize(
    ("factor", "question"),
    [(1e6, "like µV: pass --unit uV"), (1e3, "like mV: pass --unit mV"), (1e-6, "no unit of voltage fits")],
)
def test_a_doubtful_unit_is_a_question(tmp_path, factor, question):
    with pytest.raises(NeuroCanvasError, match=f"must be in volts .*{question}"):
        open_eeg_imagenet(write(tmp_path, make_records(scale=1e-5 * factor)), ALL)


def test_a_file_in_another_unit_than_the_one_beside_it_is_named(tmp_path):
    write(tmp_path, make_records(subjects=range(10)), "EEG-ImageNet_1.pth")
    late = [{**record, "stage": 30} for record in make_records(subjects=(18,), scale=1e1)]
    write(tmp_path, late, "EEG-ImageNet_stage2.pth")
    question = (
        r"EEG-ImageNet_stage2\.pth: eeg_data must be in volts .* look like µV; --unit holds for all files, and "
        r"EEG-ImageNet_1\.pth seems to be in V: convert them to one unit"
    )
    with pytest.raises(NeuroCanvasError, match=question):
        open_eeg_imagenet(tmp_path, ALL)
    with pytest.raises(NeuroCanvasError, match=question):
        convert(DataSettings(root=str(tmp_path)), tmp_path / "store")
    assert len(open_eeg_imagenet(tmp_path, DataSettings(subjects=("1",)))) == 5
    mixed = [*make_records(subjects=(1, 3)), *make_records(subjects=(2,), scale=1e1)]
    with pytest.raises(NeuroCanvasError, match=r"subject 2: .* look like µV; .* subject 1 of EEG-Image"):
        open_eeg_imagenet(write(tmp_path, mixed, "EEG-ImageNet_1.pth"), DataSettings(subjects=("1", "2", "3")))
    write(tmp_path, make_records(subjects=range(10), scale=1e1), "EEG-ImageNet_1.pth")
    with pytest.raises(NeuroCanvasError, match=r"EEG-ImageNet_1\.pth: .* the values look like µV: pass --unit uV"):
        open_eeg_imagenet(tmp_path, ALL)
    assert open_eeg_imagenet(tmp_path, DataSettings(unit="uV"))


def test_real_trials_in_volts_are_taken_and_standardised_ones_are_a_question(test_data, tmp_path):
    real = np.load(test_data / "eeg_imagenet_trials" / "trials.npz")
    for name in real.files:
        if real[name].shape != (62, 501):
            continue
        records = make_records(subjects=(0,), labels=(DOG,))
        records[0]["eeg_data"] = torch.from_numpy(real[name])
        write(tmp_path, records)
        if "volts" in name:
            signal = open_eeg_imagenet(tmp_path, ALL).signal()
            np.testing.assert_allclose(signal[0], real[name] * 1e6, rtol=1e-5)
        else:
            with pytest.raises(NeuroCanvasError, match="must be in volts"):
                open_eeg_imagenet(tmp_path, ALL)


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1e6), ("mV", 1e3), ("V", 1.0)])
def test_a_named_unit_is_taken_at_its_word(tmp_path, unit, factor):
    records = make_records(scale=1e-5 * factor)
    trials = open_eeg_imagenet(write(tmp_path, records), DataSettings(unit=unit))
    wanted = records[0]["eeg_data"].numpy() / factor * 1e6
    np.testing.assert_allclose(trials.signal([0])[0], wanted, rtol=1e-5)
    assert open_eeg_imagenet(write(tmp_path, make_records(scale=1.0)), DataSettings(unit="V"))


def test_trials_that_share_one_storage_are_read(tmp_path):
    records = make_records()
    together = torch.stack([record["eeg_data"] for record in records])
    for record, signal in zip(records, together, strict=True):
        record["eeg_data"] = signal
    trials = open_eeg_imagenet(write(tmp_path, records), ALL)
    np.testing.assert_allclose(trials.signal([3, 9]), together[[3, 9]].numpy() * 1e6, rtol=1e-6)
