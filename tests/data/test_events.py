"""Events as the file means them, what becomes of each, and channels, rates, units and gains as they are."""

from __future__ import annotations

import mne
import numpy as np
import pytest
from PIL import Image

from neurocanvas.config import DataSettings
from neurocanvas.data.recordings import open_recordings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.report.text import sentence

SFREQ, SECONDS = 250.0, 22
ONSETS = np.arange(1, 21) * 250
CODES = np.tile([3, 1, 7, 2], 5)
WORDS = {"1": "cat", "2": "dog", "3": "fish", "7": "harp"}


def signal(seed=0, n=int(SFREQ * SECONDS), channels=3):
    """Volts of noise whose channels and seeds differ."""
    return np.random.default_rng(seed).normal(0, 1e-5, (channels, n))


def save(path, line=None, notes=(), seed=0, names=("O1", "Oz", "O2"), data=None, sfreq=SFREQ, kinds=None, bads=()):
    """Write a FIF with a trigger line, or with annotations (onset s, duration s, text)."""
    data = signal(seed, channels=len(names)) if data is None else data
    kinds = ["eeg"] * len(names) if kinds is None else list(kinds)
    if line is not None:
        data, names, kinds = np.vstack([data, line]), [*names, "STI 014"], [*kinds, "stim"]
    raw = mne.io.RawArray(data, mne.create_info(list(names), sfreq, kinds), verbose="error")
    raw.info["bads"] = list(bads)
    if notes:
        raw.set_annotations(mne.Annotations(*zip(*notes)))
    path.parent.mkdir(parents=True, exist_ok=True)
    raw.save(path, fmt="double", overwrite=True, verbose="error")


def opened(folder, unit="auto", on_missing="error", **recording):
    """Trials of all files in a folder, cut from -.2 to .5 s."""
    recording = {"tmin": -0.2, "tmax": 0.5, "events": {"STI 014": WORDS}} | recording
    return open_recordings(
        folder, DataSettings(name="recordings", unit=unit, on_missing=on_missing, recording=recording)
    )


def said(trials):
    """Sentences of the trials' findings."""
    return " ".join(sentence(one) for one in trials.findings)


def pulses(length=1):
    """A trigger line with a code of this many samples at every onset."""
    line = np.zeros(int(SFREQ * SECONDS))
    for onset, code in zip(ONSETS, CODES, strict=True):
        line[onset : onset + length] = code
    return line


def held():
    """Codes that stay until the next one."""
    line = np.zeros(int(SFREQ * SECONDS))
    for onset, code in zip(ONSETS, CODES, strict=True):
        line[onset:] = code
    return line


def settling(bits=1):
    """Codes whose lowest bit comes a sample late, and leaves a sample early."""
    line = pulses(20)
    for onset, code in zip(ONSETS, CODES, strict=True):
        line[onset] = int(code) & ~bits
        line[onset + 19] = int(code) & ~bits
    return line


def flickering():
    """Codes of which a bit fails for one sample."""
    line = pulses(20)
    line[ONSETS + 10] = 4
    return line


def resting():
    """Codes of one sample on a line that rests at 255."""
    return np.where(pulses() == 0, 255, pulses())


@pytest.mark.parametrize("line", [pulses(), pulses(30), held(), settling(), settling(2), flickering(), resting()])
def test_every_change_of_a_trigger_line_is_an_event_once_its_bits_have_settled(tmp_path, line):
    save(tmp_path / "sub-1_raw.fif", line)
    trials = opened(tmp_path)
    assert trials.y.tolist() == [WORDS[str(code)] for code in CODES]
    assert np.abs(trials.column("onset") * SFREQ - ONSETS).max() < 1.01
    assert "image" not in trials.metadata and trials.images is None
    assert said(trials) == "20 events of the recordings gave 20 trials."


NOTES = [(onset / SFREQ, 0.3, WORDS[str(code)]) for onset, code in zip(ONSETS, CODES, strict=True)]
SAME = {word: word for word in WORDS.values()}


def test_what_the_settings_name_is_an_event_whatever_it_begins_with(tmp_path):
    names = {"cat": "badger", "dog": "edger", "fish": "Bad_Hersfeld", "harp": "boundary"}
    save(tmp_path / "a_raw.fif", notes=[(onset, 0.3, names[text]) for onset, _, text in NOTES])
    trials = opened(tmp_path, events={"annotations": dict.fromkeys(names.values(), "{}")})
    assert len(trials) == 20 and set(trials.y) == set(names.values())


def test_each_event_becomes_a_trial_or_is_counted(tmp_path):
    notes = [*NOTES, *NOTES[:5], (0.05, 0.3, "cat"), (21.9, 0.3, "cat"), (6.5, 0.0, "pause"), (20.9, 0, "edit")]
    notes += [(2.9, 0.3, "BAD_movement"), (9.0, 0.0, "EDGE boundary"), (9.0, 0.0, "BAD boundary")]
    data = signal()
    data[1, 5 * 250 : 5 * 250 + 60] = 7e-6
    data[2, 11 * 250 + 10] = np.nan
    data[0, 13 * 250 : 13 * 250 + 20] += 1e-3
    save(tmp_path / "a_raw.fif", notes=notes, data=data)
    trials = opened(tmp_path, events={"annotations": {**SAME, "pause": "", "*": ""}}, reject={"eeg": 3e-4})
    assert said(trials) == (
        "29 events of the recordings gave 15 trials; 2 not image onsets, 5 held twice, 2 too close to the edge of the "
        "file, 2 in stretches marked bad, 1 with NaN, 1 with a flat channel, 1 beyond reject or flat."
    )
    assert not {3, 5, 9, 11, 13} & set(trials.column("onset").round().tolist()) and np.isfinite(trials.signal()).all()
    with pytest.raises(NeuroCanvasError, match=r"annotations is 'pause' at 6\.500 s.*\"\*\" = \"\" for all others"):
        opened(tmp_path, events={"annotations": SAME})


def test_patterns_and_the_text_itself(tmp_path):
    save(tmp_path / "a_raw.fif", notes=[(onset, 0.3, f"{text}_1.jpg") for onset, _, text in NOTES] + [(6.5, 0, "key")])
    trials = opened(tmp_path, events={"annotations": {"*.jpg": "{}", "*": ""}})
    assert set(trials.y) == {f"{word}_1.jpg" for word in WORDS.values()}


def test_two_conditions_at_one_sample_are_refused(tmp_path):
    save(tmp_path / "a_raw.fif", notes=[*NOTES, (NOTES[0][0], 0.3, "cat")])
    with pytest.raises(NeuroCanvasError, match=r"'fish', 'cat' begin at the same sample, 1\.000 s"):
        opened(tmp_path, events={"annotations": SAME})


def test_runs_and_names_are_those_of_bids_in_natural_order(tmp_path):
    for seed, name in enumerate(("sub-anna_run-10", "sub-anna_run-2", "sub-01_ses-pre_run-1", "sub-1_ses-post_run-1")):
        save(tmp_path / f"{name}_raw.fif", pulses(), seed=seed)
    trials = opened(tmp_path)
    keys = trials.metadata[["subject", "run"]].drop_duplicates().to_numpy().tolist()
    assert sorted(map(tuple, keys)) == [("01", "1"), ("1", "1"), ("anna", "10"), ("anna", "2")]
    anna = trials[trials.column("subject") == "anna"]
    assert anna.metadata.sort_values("order")["run"].drop_duplicates().tolist() == ["2", "10"]


def test_a_recording_that_is_there_twice_is_refused(tmp_path):
    save(tmp_path / "a_raw.fif", pulses())
    (tmp_path / "b_raw.fif").write_bytes((tmp_path / "a_raw.fif").read_bytes())
    with pytest.raises(NeuroCanvasError, match=r"b_raw\.fif: the same recording as .*a_raw\.fif"):
        opened(tmp_path)


def test_gains_and_units(tmp_path):
    for run, gain in enumerate((1, 100, 1)):
        save(tmp_path / f"run-{run}_raw.fif", pulses(), data=signal(run) * gain)
    with pytest.raises(NeuroCanvasError, match=r"run-1_raw.fif: its standard deviation is .*another unit or gain"):
        opened(tmp_path)
    trials = opened(tmp_path, scale={"run-1*": 0.01})
    assert trials.signal().std() == pytest.approx(10, rel=0.05)
    for run in range(3):
        save(tmp_path / f"run-{run}_raw.fif", pulses(), data=signal(run) * 1e6)
    with pytest.raises(NeuroCanvasError, match="pass --unit V, mV or uV"):
        opened(tmp_path)
    assert opened(tmp_path, unit="uV").signal().std() == pytest.approx(10, rel=0.05)


def test_channels_have_types_bads_and_one_name(tmp_path):
    names = ("O1", "Oz", "O2", "Pz", "Cz", "Fz", "EOG left", "ECG")
    save(tmp_path / "a_raw.fif", pulses(), names=names, kinds=["eeg"] * 6 + ["eog", "ecg"], bads=["O2"])
    trials = opened(tmp_path, drop=("Pz", "Cz", "Fz"))
    assert trials.spec.ch_names == ("O1", "Oz")
    assert "Channels that are not used: EOG left (eog), ECG (ecg)." in said(trials) and "O2." in said(trials)
    assert opened(tmp_path, interpolate_bads=True).spec.ch_names == names[:6]
    assert opened(tmp_path, types={"O1": "misc"}).spec.ch_names == ("Oz", "Pz", "Cz", "Fz")
    assert opened(tmp_path, channels=("Oz", "ECG")).spec.ch_names == ("Oz", "ECG"), "what is asked for by name is taken"
    with pytest.raises(NeuroCanvasError, match="two channels are called 'O1'"):
        opened(tmp_path, rename={"Oz": "O1"})


def test_preprocessing_is_that_of_mne(tmp_path):
    save(tmp_path / "a_raw.fif", pulses(), data=signal() + 5e-5)
    raw = mne.io.read_raw_fif(tmp_path / "a_raw.fif", preload=True, verbose="error").pick("eeg")
    events = np.column_stack([ONSETS, np.zeros_like(ONSETS), CODES])
    reference = raw.copy().set_eeg_reference("average", verbose="error").notch_filter(50, verbose="error")
    reference.filter(1, 30, verbose="error")
    reference, moved = reference.resample(125, events=events, verbose="error")
    epochs = mne.Epochs(
        reference, moved, tmin=-0.2, tmax=0.48 - 1 / 125, baseline=(-0.2, 0), preload=True, verbose="error"
    )
    trials = opened(
        tmp_path, reference=("average",), notch=(50,), l_freq=1, h_freq=30, sfreq=125, baseline=(-0.2, 0), tmax=0.48,
    )  # fmt: skip
    assert trials.spec.sfreq == 125 and trials.spec.lowpass == 30
    np.testing.assert_allclose(trials.signal(), epochs.get_data(copy=True) * 1e6, atol=1e-4)


def test_delays_tables_and_light_sensors_move_onsets(tmp_path):
    save(tmp_path / "plain" / "a_raw.fif", pulses())
    assert (opened(tmp_path / "plain", delay=0.02).column("onset") * SFREQ).round().tolist() == (ONSETS + 5).tolist()
    table = "onset\tduration\tstim_file\n" + "".join(f"{onset:.3f}\t0.3\t{text}.jpg\n" for onset, _, text in NOTES)
    save(tmp_path / "bids" / "sub-1_task-x_eeg.fif")
    (tmp_path / "bids" / "sub-1_task-x_events.tsv").write_text(table)
    trials = opened(tmp_path / "bids", events={"stim_file": {"*.jpg": "{}"}})
    assert trials.y.tolist() == [f"{text}.jpg" for _, _, text in NOTES]
    assert (trials.column("onset") * SFREQ).round().tolist() == ONSETS.tolist()
    light = signal(9, channels=1)[0] * 0.01
    for onset in ONSETS:
        light[onset + 8 : onset + 100] += 1e-3
    save(tmp_path / "light" / "a_raw.fif", pulses(), names=("O1", "light"), data=np.vstack([signal(channels=1), light]),
         kinds=["eeg", "misc"])  # fmt: skip
    trials = opened(tmp_path / "light", photodiode="light")
    assert (trials.column("onset") * SFREQ).round().tolist() == (ONSETS + 8).tolist()


def write_edf(path, channels, rate_of, labels, notes, record_onsets, kind="EDF+D"):
    """A small EDF+ file with one-second records, each channel with its own rate, and annotations."""
    n_records, size = len(record_onsets), 120
    heads = [*labels, "EDF Annotations"]
    per_record = [*rate_of, size]
    who = f"{'0':<8}{'X X X X':<80}{'Startdate 01-JAN-2020 X X X':<80}"
    fixed = who + f"01.01.2000.00.00{256 * (1 + len(heads)):<8}{kind:<44}"
    head = fixed + f"{n_records:<8}{1:<8}{len(heads):<4}"
    columns = [
        [f"{name:<16}" for name in heads], [" " * 80] * len(heads), [f"{'uV':<8}"] * len(heads),
        [f"{-3200:<8}"] * len(heads), [f"{3200:<8}"] * len(heads), [f"{-32768:<8}"] * len(heads),
        [f"{32767:<8}"] * len(heads), [" " * 80] * len(heads), [f"{count:<8}" for count in per_record],
        [" " * 32] * len(heads),
    ]  # fmt: skip
    body = b""
    for number, start in enumerate(record_onsets):
        for values, rate in zip(channels, rate_of, strict=True):
            part = values[number * rate : (number + 1) * rate] * 1e6
            body += np.clip(np.round((part + 3200) / 6400 * 65535 - 32768), -32768, 32767).astype("<i2").tobytes()
        text = f"+{start}\x14\x14\x00" + "".join(
            f"+{onset:.3f}\x15{duration}\x14{word}\x14\x00"
            for onset, duration, word in notes
            if start <= onset < start + 1
        )
        body += text.encode("latin1").ljust(2 * size, b"\0")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((head + "".join(map("".join, columns))).encode("ascii") + body)


def test_gaps_of_an_edf_are_in_its_clock_and_not_in_its_samples(tmp_path):
    records = [*range(10), *range(40, 52)]
    shown = [
        (second + 0.2, 0.3, WORDS[str(CODES[place % 4])]) for place, second in enumerate(records) if 0 < place < 21
    ]
    marked = signal()
    for place in range(len(records)):
        marked[:, place * 250 + 50] += 3e-4 if 0 < place < 21 else 0
    write_edf(tmp_path / "a.edf", marked, [250] * 3, ["O1", "Oz", "O2"], shown, records)
    trials = opened(tmp_path, events={"annotations": SAME})
    assert np.abs(trials.signal()[:, :, 50]).min() > 200, "every trial holds the mark at its onset"
    assert "1 in stretches marked bad" in said(trials) and len(trials) == 19, "one trial lies across the gap"


def test_the_rate_is_that_of_the_eeg_and_not_of_the_fastest_channel(tmp_path):
    fast = signal(5, 1000 * SECONDS, 1)[0]
    slow = signal(6, 100 * SECONDS, 2)
    write_edf(tmp_path / "a.edf", [*slow, fast], [100, 100, 1000], ["O1", "Oz", "Aux"], NOTES, range(SECONDS), "EDF+C")
    trials = opened(tmp_path, events={"annotations": SAME})
    assert trials.spec.sfreq == 100 and trials.spec.ch_names == ("O1", "Oz")


def test_latin1_annotations_name_the_setting(tmp_path):
    notes = [(onset, duration, "Bär" if text == "cat" else text) for onset, duration, text in NOTES]
    write_edf(tmp_path / "a.edf", signal(), [250] * 3, ["O1", "Oz", "O2"], notes, range(SECONDS), "EDF+C")
    words = {**SAME, "Bär": "bear"}
    with pytest.raises(NeuroCanvasError, match=r"set data\.recording\.encoding"):
        opened(tmp_path, events={"annotations": words})
    assert "bear" in opened(tmp_path, events={"annotations": words}, encoding="latin1").y


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["face", "house"], {"face": "face", "house": "house"}),
        (["2099601", "2099604"], {"2099601": "face", "2099604": "house"}),
        (["2099601.0", "2.099604e6"], {"2099601": "face", "2099604": "house"}),
    ],
)
@pytest.mark.parametrize("blank", ["0", "", "0.0"])
@pytest.mark.parametrize("rate", [255.4, 255.6, 256.0])
def test_markers_of_a_csv_are_words_or_long_numbers_between_blanks(tmp_path, cells, words, blank, rate):
    n, rows = 256 * 12, ["timestamps,TP9,AF7,Marker0"]
    values = signal(1, n, 2) * 1e6
    for sample in range(n):
        marker = cells[(sample // 256) % 2] if sample % 256 in (100, 101) else blank
        rows.append(f"{1.5e9 + sample / rate:.6f},{values[0, sample]:.3f},{values[1, sample]:.3f},{marker}")
    (tmp_path / "a.csv").write_text("\ufeff" + "\n".join(rows) + "\n", encoding="utf-8")
    trials = opened(tmp_path, events={"Marker0": words})
    assert trials.y.tolist() == ["face", "house"] * 6 and trials.spec.sfreq == 256


@pytest.mark.parametrize("method", ["regression", "ica"])
def test_eye_movements_are_removed_by_the_eog_channels(tmp_path, method):
    names = ["Fp1", "Fp2", "Fz", "Cz", "Pz", "O1", "O2", "EOG"]
    data = signal(channels=8)
    blinks = np.zeros(data.shape[1])
    for onset in range(300, data.shape[1] - 100, 600):
        blinks[onset : onset + 60] = 2e-4 * np.hanning(60)
    data += np.outer([0.8, 0.8, 0.5, 0.3, 0.2, 0.1, 0.1, 1.0], blinks)
    save(tmp_path / "a_raw.fif", pulses(), names=names, data=data, kinds=["eeg"] * 7 + ["eog"])

    def leaked(**settings):
        found = opened(tmp_path, **settings).signal()
        return np.ptp(found[:, 0], axis=1).max()

    assert leaked(eog=method) < 0.6 * leaked() and opened(tmp_path, eog=method).spec.ch_names == tuple(names[:7])
    with pytest.raises(NeuroCanvasError, match="needs an EOG channel"):
        opened(tmp_path, eog=method, types={"EOG": "misc"})


def test_trials_without_an_image_are_refused_or_dropped_and_a_folder_names_the_right_one(tmp_path):
    save(tmp_path / "data" / "a_raw.fif", notes=[(onset, 0.3, f"{text}/img.png") for onset, _, text in NOTES])
    for number, word in enumerate(("cat", "dog", "fish")):
        path = tmp_path / "shown" / word / "img.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(path)
    recording = {"events": {"annotations": {"*.png": "{}"}}, "pictures": str(tmp_path / "shown")}
    with pytest.raises(NeuroCanvasError, match=r"'harp/img\.png' has no image.*--on-missing drop"):
        opened(tmp_path / "data", **recording)
    trials = opened(tmp_path / "data", on_missing="drop", **recording)
    assert len(trials) == 15 and "5 without an image" in said(trials)
    assert [image.split("/")[0] for image in trials.column("image")] == trials.y.tolist()


def test_recordings_are_cut_again_when_only_a_table_beside_them_changes(tmp_path):
    save(tmp_path / "sub-1_eeg.fif", pulses(), names=("O1", "Oz", "O2", "Pz", "Cz"))
    table = tmp_path / "sub-1_channels.tsv"
    rows = [f"{name}\tEEG\tgood" for name in ("O1", "Oz", "O2", "Pz", "Cz")]
    table.write_text("\n".join(["name\ttype\tstatus", *rows]))
    first = opened(tmp_path, interpolate_bads=True)
    before, key = first.signal(), first.fingerprint()
    table.write_text(table.read_text().replace("Pz\tEEG\tgood", "Pz\tEEG\tbad"))
    second = opened(tmp_path, interpolate_bads=True)
    assert second.fingerprint() != key and np.abs(second.signal() - before).max() > 1


def test_filters_do_not_run_across_joins(tmp_path):
    data = signal()
    data[:, 10 * 250 + 100 :] += 5e-3
    for phase in ("zero", "causal"):
        save(tmp_path / phase / "a_raw.fif", notes=[*NOTES, (10.4, 0.0, "EDGE boundary")], data=data)
        found = opened(tmp_path / phase, events={"annotations": SAME}, l_freq=0.5, phase=phase).signal()
        assert np.abs(found).max() < 100, phase


def test_onsets_of_runs_of_several_rates_and_parents_called_subjects(tmp_path):
    save(tmp_path / "subjects" / "sub-A" / "a_raw.fif", pulses())
    fast = np.repeat(pulses(), 2)
    save(tmp_path / "subjects" / "sub-B" / "a_raw.fif", fast, data=signal(3, len(fast)), sfreq=2 * SFREQ)
    trials = opened(tmp_path, sfreq=125)
    assert set(trials.column("subject")) == {"A", "B"}
    for name in "AB":
        onsets = trials.column("onset")[trials.column("subject") == name]
        np.testing.assert_allclose(onsets, ONSETS / SFREQ, atol=0.01)


def test_a_light_that_was_on_half_a_second_before_does_not_hide_the_step(tmp_path):
    light = signal(9, channels=1)[0] * 0.01
    for onset in ONSETS:
        light[onset + 20 : onset + 95] += 1e-3
        light[onset - 105 : onset - 30] += 1e-3  # of an image in between
    save(tmp_path / "a_raw.fif", pulses(), names=("O1", "light"), data=np.vstack([signal(channels=1), light]),
         kinds=["eeg", "misc"])  # fmt: skip
    assert (opened(tmp_path, photodiode="light").column("onset") * SFREQ).round().tolist() == (ONSETS + 20).tolist()


def test_a_run_without_onsets_is_no_obstacle(tmp_path):
    save(tmp_path / "run-1_raw.fif", pulses())
    save(tmp_path / "run-2_raw.fif", np.zeros(int(SFREQ * SECONDS)), seed=4)
    assert len(opened(tmp_path)) == 20
