"""Continuous recordings to Trials: any format that MNE reads, BIDS folders and Muse CSV files."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas.artifacts import cached, fingerprint, sha256
from neurocanvas.config import DataSettings, RecordingSettings
from neurocanvas.data.events import SUFFIXES, Run, open_run, text_of
from neurocanvas.data.images import Images, alike, by_name, file_of
from neurocanvas.data.inspect import signal_groups
from neurocanvas.data.montage import channel_info
from neurocanvas.data.trials import Trials, TrialSpec, make_metadata, natural_key, unique_names
from neurocanvas.errors import NeuroCanvasError, check_folder, check_option
from neurocanvas.findings import finding

if TYPE_CHECKING:
    import pandas as pd

# µV per volt: MNE holds volts.
MICROVOLTS = 1e6

# Standard deviation of EEG over a run, µV: outside this range the unit is not the one that the file states.
PLAUSIBLE = (0.1, 1e4)

# Runs whose standard deviations differ by more than this factor have other units or gains.
LARGEST_RATIO = 10.0

# A channel that does not change for this long, s, is not recording.
FLAT_SECONDS = 0.1

# How annotations begin at which recordings were joined or paused: no filter runs across these.
JOINS = ("bad edge", "bad boundary", "bad bad boundary", "bad bad_acq_skip", "bad gap")

# Order of the causal Butterworth filters.
FILTER_ORDER = 2

# Components that correlate with an EOG channel by this are eye movements; z-scores of few components are never large.
BLINK_CORRELATION = 0.7

# Seconds after a marker in which the light sensor must step.
PHOTODIODE_WITHIN = 0.5

# Why an event is no trial, beside those that are no image onsets: what the drop log counts.
REASONS = ("", "edge", "marked_bad", "not_finite", "flat", "amplitude")


def open_recordings(root: Path | str, settings: DataSettings) -> Trials:
    """Open a folder of continuous recordings as trials in µV: every file is one run."""
    # Reads the signal once, to know which trials can be used; the shared cache remembers it.
    import pandas as pd

    recording = settings.recording
    folder = check_folder(root, "continuous recordings (data.root)")
    if not recording.events:
        raise NeuroCanvasError(
            "data.recording.events: at least one source of onsets is needed; got none. `neurocanvas init` lists what "
            "the files hold and writes the settings."
        )
    runs, hashes = _open_runs(folder, settings)
    names, rates = _channels(runs, recording), np.array([run.raw.info["sfreq"] for run in runs])
    sfreq = float(recording.sfreq or rates[0])
    first, stop = round(recording.tmin * sfreq), round(recording.tmax * sfreq)
    if stop <= first:
        raise NeuroCanvasError(
            f"{runs[0].path}: no sample, at {sfreq:g} Hz, from data.recording.tmin = {recording.tmin} s to tmax = "
            f"{recording.tmax} s; tmax must be later."
        )
    lowpass = min([recording.h_freq or sfreq / 2, *(run.raw.info["lowpass"] for run in runs)])
    spec = TrialSpec(names, sfreq, first / sfreq, stop - first, lowpass=lowpass if lowpass < sfreq / 2 else None)
    images = _images(recording)
    image_of = None if images is None else _image_ids(images)
    counts = Counter({"doubled": sum(run.doubled for run in runs), "gap": sum(run.in_gaps for run in runs)})
    onsets = pd.concat(
        [_onsets(run, settings, images, image_of, counts) for run in runs], keys=range(len(runs))
    )
    if onsets.empty:
        raise NeuroCanvasError(
            f"{folder}: no image onset in {len(runs)} files ({_counted(counts)}); see data.recording.events."
        )
    number, sample = onsets.index.get_level_values(0).to_numpy(), onsets["sample"].to_numpy(dtype=np.int64)
    of_run = [sample[number == index] for index in range(len(runs))]
    cut = lru_cache(maxsize=4)(lambda index: _cut(runs[index], recording, spec, of_run[index]))
    facts = [fingerprint(one, *_facts(run, recording)) for one, run in zip(hashes, runs, strict=True)]
    keys = [
        fingerprint("cut 2", one, settings.unit, recording, names, samples)
        for one, samples in zip(facts, of_run, strict=True)
    ]
    measured = list(cached("recordings", keys, lambda missing: (np.append(*cut(index)[:2]) for index in missing)))
    _check_gains(runs, [float(one[0]) for one in measured])
    codes = np.concatenate([one[1:] for one in measured]).astype(int)
    counts.update(REASONS[code] for code in codes[codes > 0])
    usable = codes == 0
    if not usable.any():
        raise NeuroCanvasError(f"{folder}: none of {len(codes)} image onsets can be a trial: {_counted(counts)}.")
    entities = _entities(folder, [run.path for run in runs])
    columns = {**entities.iloc[number], "onset": sample / rates[number], **onsets.drop(columns="sample")}
    metadata = make_metadata({name: np.asarray(values)[usable] for name, values in columns.items()})
    place = np.concatenate([np.cumsum(one[1:] == 0) - 1 for one in measured]).astype(int)
    read = _reader(cut, spec, number[usable], place[usable])
    source = fingerprint(facts, settings.unit, recording, settings.on_missing)
    found = finding("events", events=sum(counts.values()) + int(usable.sum()), trials=int(usable.sum()),
                    dropped=_counted(counts) or None)  # fmt: skip
    others = _named({f"{name} ({kind})": kind for run in runs for name, kind in run.others.items() if kind != "stim"})
    bads = sorted({bad for run in runs for bad in run.raw.info["bads"]})
    findings = [found] + ([finding("channels-left-out", names=others)] if others else [])
    findings += [finding("bad-channels", names=", ".join(bads))] if bads else []
    trials = Trials(metadata, spec, read, source, images)
    key = fingerprint("signals", trials.fingerprint())
    sizes = np.bincount(next(cached("signals", [key], lambda _: [signal_groups(trials)])))
    if (repeated := sizes[sizes > 1]).any():
        findings.append(finding("same-signals", trials=int(repeated.sum()), signals=len(repeated)))
    trials = replace(trials, findings=tuple(findings))
    present = unique_names(trials.column("subject"))
    for subject in settings.subjects:
        check_option("subject", subject, present)
    return trials[np.isin(trials.column("subject"), settings.subjects or present)]


def find_recordings(folder: Path, pattern: str) -> list[Path]:
    """Recording files below a folder that a glob matches, or all of known formats, in natural order."""
    try:
        paths = [path for path in folder.glob(pattern or "**/*") if path.is_file() or path.suffix.lower() == ".mff"]
    except (NotImplementedError, ValueError, IndexError) as error:
        raise NeuroCanvasError(
            f"data.recording.files: a pattern below {folder} is needed; got {pattern!r} ({error})."
        ) from error
    if not pattern:
        paths = [
            path for path in paths if path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")
            and (path.suffix.lower() != ".csv" or _is_muse(path)) and not path.name.endswith(("-epo.fif", "_epo.fif"))
        ]  # fmt: skip
    if not paths:
        raise NeuroCanvasError(f"{folder}: no file matches data.recording.files = {pattern!r}.")
    return sorted(paths, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def _is_muse(path: Path) -> bool:
    """Whether a CSV file begins as recordings do; folders hold other tables too."""
    with path.open("rb") as stream:
        return stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip(b' "').startswith(b"timestamps")


def _open_runs(folder: Path, settings: DataSettings) -> tuple[list[Run], list[str]]:
    """Open all recordings: parts of a split one belong to the first, and no two may be the same; and their hashes."""
    runs: list[Run] = []
    hashes: dict[str, Path] = {}
    parts: set[Path] = set()
    for path in find_recordings(folder, settings.recording.files):
        if path.resolve() in parts:
            continue
        run = open_run(path, settings.recording, settings.unit)
        files = [Path(name) for name in run.raw.filenames if name]
        parts |= {file.resolve() for file in files}
        of_run = fingerprint([sha256(file) for file in dict.fromkeys((path, *files)) if file.is_file()])
        if of_run in hashes:
            raise NeuroCanvasError(
                f"{path}: the same recording as {hashes[of_run]}; leave one of them out with data.recording.files."
            )
        hashes[of_run] = path
        runs.append(run)
    rate = runs[0].raw.info["sfreq"]
    other = next((run for run in runs if run.raw.info["sfreq"] != rate), None)
    if other is not None and settings.recording.sfreq is None:
        raise NeuroCanvasError(
            f"{other.path}: all runs need the same sampling rate; {runs[0].path.name} has {rate}, this one "
            f"{other.raw.info['sfreq']}. Resample all with data.recording.sfreq, or leave files out with "
            "data.recording.files."
        )
    return runs, list(hashes)


def _entities(folder: Path, paths: Sequence[Path]) -> pd.DataFrame:
    """Subject, session and run of every file, as BIDS or folder names have them; runs without a name are counted."""
    import pandas as pd

    patterns = {"subject": r"sub-|subject(?!s/)[-_ ]?", "session": r"ses-|session(?!s/)[-_ ]?", "run": r"run-"}
    texts = [path.relative_to(folder).as_posix().removesuffix(".gz") for path in paths]
    texts = [text.rpartition(".")[0] for text in texts]
    table = pd.DataFrame({
        name: [match[1] if (match := re.search(rf"(?:^|[/_])(?:{pattern})([^/_]+)", text)) else "" for text in texts]
        for name, pattern in patterns.items()
    })  # fmt: skip
    table[["subject", "session"]] = table[["subject", "session"]].replace("", "0")
    if (table["run"] == "").any() or table.duplicated().any():  # several tasks have a run of the same number
        table["run"] = table.groupby("subject").cumcount().astype(str)
    return table


def _images(recording: RecordingSettings) -> Images | None:
    if not recording.pictures:
        return None
    return Images.from_gratings() if recording.pictures == "gratings" else Images.from_folder(recording.pictures)


def _facts(run: Run, recording: RecordingSettings) -> list[Any]:
    """What else than the signal's file decides how a run is cut: markers and tables beside it, and its name."""
    notes = run.raw.annotations
    return [
        notes.onset.tolist(), notes.duration.tolist(), [str(label) for label in notes.description],
        sorted(run.raw.info["bads"]), list(run.raw.ch_names), run.raw.get_channel_types(),
        [factor for pattern, factor in recording.scale.items() if fnmatchcase(run.path.name, pattern)],
    ]  # fmt: skip


def _image_ids(images: Images) -> Callable[[str], str | None]:
    """The function from what an event says to the id of an image: an id, a file's name, or one with its folder."""
    id_of = {path: name for name, path in images.files.items()}
    index, known = by_name(id_of), set(images.ids)
    folders = {path.parent.name for path in id_of}

    @cache
    def find(name: str) -> str | None:
        parts = name.replace("\\", "/").split("/")
        for some in dict.fromkeys((name, "/".join(parts[-2:]))):
            if some in known:
                return some
            if (path := file_of(index, some)) is not None:
                return id_of[path]
        alone = index.get(alike(parts[-1]), [])  # in a folder of another name, unless that is another image's
        return id_of[alone[0]] if len(alone) == 1 and not {*parts[-2:-1]} & folders else None

    return find


def _onsets(
    run: Run, settings: DataSettings, images: Images | None, image_of: Callable[[str], str | None] | None,
    counts: Counter[str],
) -> pd.DataFrame:  # fmt: skip
    """Samples of the image onsets with their concept and, where there are images, image; counts of the other events."""
    import pandas as pd

    rows, sfreq, recording = [], run.raw.info["sfreq"], settings.recording
    template = recording.stimulus or f"{{{next(iter(recording.events))}}}"
    for sample, values in zip(run.events.index, run.events.to_dict("records"), strict=True):
        names: dict[str, str] = {}
        for source, allowed in recording.events.items():
            text, known = text_of(values[source], allowed)
            if not known:
                raise NeuroCanvasError(
                    f"{run.path}: {source} is {values[source]!r} at {sample / sfreq:.3f} s; data.recording.events "
                    f"allows {', '.join(allowed)}. Add it, with '' if it is not the onset of an image, or \"*\" = \"\" "
                    "for all others."
                )
            names[source] = text
        if not all(names.values()):
            counts["no_onset"] += 1
            continue
        stimulus, concept = (_formatted(text, names, name) for name, text in
                             (("stimulus", template), ("concept", recording.concept or template)))  # fmt: skip
        if images is not None and image_of is not None and (found := image_of(stimulus)) is not None:
            stimulus = found
        elif images is not None:
            if settings.on_missing == "drop":
                counts["missing"] += 1
                continue
            raise NeuroCanvasError(
                f"stimulus {stimulus!r} has no image; there are {len(images.ids)}, such as "
                f"{', '.join(images.ids[:8])}. See data.recording.stimulus and data.recording.pictures, or leave such "
                "trials out with --on-missing drop."
            )
        if images is not None and not recording.concept:
            concept = images.concepts[stimulus]
        rows.append({"sample": sample + round(recording.delay * sfreq), "image": stimulus, "concept": concept})
    shown = ["image"] if images is not None or recording.concept else []
    table = pd.DataFrame(rows, columns=["sample", *shown, "concept"])
    same = table[table["sample"].duplicated(keep=False)] if rows else table
    if len(same):
        raise NeuroCanvasError(
            f"{run.path}: {', '.join(map(repr, same['concept'][:2]))} begin at the same sample, "
            f"{same['sample'].iloc[0] / sfreq:.3f} s; map one of them to '' in data.recording.events."
        )
    return _at_light(run, table, recording.photodiode) if recording.photodiode and rows else table


def _formatted(template: str, names: dict[str, str], setting: str) -> str:
    try:
        return template.format_map(names)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        raise NeuroCanvasError(
            f"data.recording.{setting}: allowed in braces are {', '.join(names)}; got {template!r} ({error})."
        ) from error


def _at_light(run: Run, onsets: pd.DataFrame, channel: str) -> pd.DataFrame:
    """Move onsets to where the light sensor crosses half of its step."""
    check_option(f"{run.path}: data.recording.photodiode", channel, run.raw.ch_names)
    light = run.raw.get_data(picks=[channel], verbose="error")[0]
    within, moved = round(PHOTODIODE_WITHIN * run.raw.info["sfreq"]), []
    just_before, spread = max(3, within // 25), float(np.ptp(np.quantile(light, [0.01, 0.99])))
    for sample in onsets["sample"]:
        # the level at the marker itself: half a second before, another image may have been lit
        level, after = np.median(light[max(0, sample - just_before) : sample + 1]), light[sample : sample + within]
        step = after[np.abs(after - level).argmax()] - level if len(after) else 0.0
        if not abs(step) > 0.3 * spread or not spread:
            raise NeuroCanvasError(
                f"{run.path}: {channel} does not step within {PHOTODIODE_WITHIN} s after the marker at "
                f"{sample / run.raw.info['sfreq']:.3f} s; use data.recording.delay instead of photodiode."
            )
        moved.append(sample + int(np.argmax((after - level) / step > 0.5)))
    if len(set(moved)) < len(moved):
        raise NeuroCanvasError(
            f"{run.path}: two markers belong to one step of {channel}; map one of them to '' in data.recording.events."
        )
    return onsets.assign(sample=moved)


def _channels(runs: Sequence[Run], recording: RecordingSettings) -> tuple[str, ...]:
    """Rename, check and select channels, the same in all runs; bad ones are left out of all, or interpolated."""
    path, all_names = runs[0].path, list(runs[0].raw.ch_names)
    unknown = [name for name in recording.rename if name not in all_names]
    names = [recording.rename.get(name, name) for name in all_names]
    unknown += [name for name in (*recording.channels, *recording.drop) if name not in names]
    if unknown:
        raise NeuroCanvasError(f"{path}: no channel {unknown[0]!r}; there are {', '.join(all_names)}.")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise NeuroCanvasError(
            f"{path}: two channels are called {twice[0]!r}; give them different names with data.recording.rename."
        )
    of_run = []
    for run in runs:
        renamed = {old: new for old, new in recording.rename.items() if old in run.raw.ch_names}
        run.raw.rename_channels(renamed, verbose="error")
        of_run.append([
            name for name, kind in zip(run.raw.ch_names, run.raw.get_channel_types()) if kind == "eeg"
            and (name in recording.channels or not recording.channels) and name not in recording.drop
        ])  # fmt: skip
    for run, eeg in zip(runs, of_run, strict=True):
        if eeg != of_run[0]:
            raise NeuroCanvasError(
                f"{run.path}: all runs need the same channels; {path.name} has {', '.join(of_run[0])}, this one "
                f"{', '.join(eeg)}. Select those that all have with data.recording.channels, or leave files out with "
                "data.recording.files."
            )
    bads = {name for run in runs for name in (*run.raw.info["bads"], *recording.bads)}
    asked = recording.channels or of_run[0]
    selected = tuple(name for name in asked if recording.interpolate_bads or name not in bads)
    if not selected:
        raise NeuroCanvasError(f"{path}: all of {', '.join(asked)} are bad channels; see data.recording.bads.")
    return selected


def _cut(
    run: Run, recording: RecordingSettings, spec: TrialSpec, samples: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standard deviation of a run, µV; why each event is no trial (`REASONS`); and the signal of the trials, µV."""
    import mne

    if not len(samples):
        return np.array([np.nan]), np.zeros(0), np.empty((0, len(spec.ch_names), spec.n_times), np.float32)
    with _quiet(run.path):
        raw, deviation = _preprocessed(run, recording, spec.ch_names)
        events = np.column_stack([samples + raw.first_samp, np.zeros_like(samples), np.arange(len(samples)) + 1])
        if recording.sfreq is not None and recording.sfreq != raw.info["sfreq"]:
            raw, events = raw.resample(recording.sfreq, events=events)
        epochs = mne.Epochs(
            raw, events, tmin=spec.tmin, tmax=spec.tmin + (spec.n_times - 1) / spec.sfreq, baseline=None,
            picks=list(spec.ch_names), reject=None, flat=None, preload=True, reject_by_annotation=True,
            event_repeated="error", on_missing="ignore", proj=False,
        )  # fmt: skip
        if recording.baseline is not None and len(epochs):
            epochs.apply_baseline(recording.baseline)
        before = set(epochs.selection.tolist())
        epochs.drop_bad(reject=dict(recording.reject) or None, flat=dict(recording.flat) or None)
        kept, signal = set(epochs.selection.tolist()), epochs.get_data(copy=False) * MICROVOLTS
    codes = np.zeros(len(samples))
    for number, reasons in enumerate(epochs.drop_log):
        text = " ".join(reasons).lower()
        if number not in kept:
            codes[number] = REASONS.index(
                "amplitude" if number in before else "edge" if "too_short" in text or "no_data" in text
                else "not_finite" if "bad_nan" in text else "flat" if "bad_flat" in text else "marked_bad"
            )  # fmt: skip
    return np.array([deviation]), codes, signal.astype(np.float32)


def _preprocessed(run: Run, recording: RecordingSettings, names: tuple[str, ...]) -> tuple[Any, float]:
    """Read, check, re-reference and filter a run; stretches without a usable signal are annotated as bad."""
    import mne

    raw = run.raw.copy().load_data()
    for pattern, factor in recording.scale.items():
        if fnmatchcase(run.path.name, pattern):
            raw.apply_function(lambda x, factor=factor: x * factor)
    kinds = dict(zip(raw.ch_names, raw.get_channel_types()))
    reference = [name for name in recording.reference if name != "average"]
    eyes = [name for name, kind in kinds.items() if kind == "eog"] if recording.eog else []
    # references and interpolation rest on all EEG channels that are not dropped, whichever of them are selected
    needs_all = recording.interpolate_bads or recording.eog or recording.reference == ("average",)
    whole = [name for name, kind in kinds.items() if kind == "eeg" and needs_all and name not in recording.drop]
    raw.pick(list(dict.fromkeys((*names, *whole, *reference, *eyes))))
    raw.info["bads"] = [name for name in {*raw.info["bads"], *recording.bads} if name in raw.ch_names]
    signal = raw.get_data(picks=list(names))
    finite = np.isfinite(signal)
    for name, values, numbers in zip(names, signal, finite, strict=True):
        if not numbers.any() or np.ptp(values[numbers]) == 0:
            problem = "is flat" if numbers.any() else "holds no numbers"
            raise NeuroCanvasError(f"{run.path}: channel {name} {problem}; leave it out (data.recording.drop).")
    if not finite.all():
        raw.set_annotations(raw.annotations + mne.preprocessing.annotate_nan(raw))
        raw.apply_function(_filled)
    deviation = MICROVOLTS * float(np.median(raw.get_data(picks=list(names)).std(axis=1)))
    if not PLAUSIBLE[0] <= deviation <= PLAUSIBLE[1]:
        raise NeuroCanvasError(
            f"{run.path}: the channels' standard deviation must be {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} µV; "
            f"got {deviation:.3g}. The unit is not the one that the file states (CSV files hold µV): pass --unit V, mV "
            "or uV, or give the file a factor with data.recording.scale."
        )
    flat, _ = mne.preprocessing.annotate_amplitude(
        raw, flat={"eeg": 0.0}, bad_percent=100, min_duration=FLAT_SECONDS, picks=list(names)
    )
    raw.set_annotations(raw.annotations + flat)
    if recording.interpolate_bads and raw.info["bads"]:
        raw.set_montage(channel_info(raw.ch_names, 1.0).get_montage(), on_missing="ignore")
        try:
            raw.interpolate_bads()
        except (ValueError, RuntimeError) as error:
            raise NeuroCanvasError(
                f"{run.path}: {', '.join(raw.info['bads'])} cannot be interpolated ({str(error).splitlines()[0]}); "
                "leave bad channels out: data.recording.interpolate_bads = false."
            ) from error
    if recording.reference:
        raw.set_eeg_reference("average" if recording.reference == ("average",) else list(reference))
    if recording.notch:
        raw.notch_filter(recording.notch, picks="eeg", skip_by_annotation=JOINS)
    _band_pass(raw, recording)
    if recording.eog:
        _without_eyes(raw, run.path, recording.eog)
    return raw, deviation


def _filled(values: np.ndarray) -> np.ndarray:
    """A channel in which missing samples lie on lines between the others; they are annotated as bad."""
    finite = np.isfinite(values)
    places = np.arange(len(values))
    return np.interp(places, places[finite], values[finite]) if finite.any() else np.zeros_like(values)


def _band_pass(raw: Any, recording: RecordingSettings) -> None:
    """MNE's filters: zero-phase FIR, or forward Butterworth from the steady state of the first sample."""
    edges = recording.l_freq, recording.h_freq
    for edge in edges:
        if edge is not None and edge >= raw.info["sfreq"] / 2:
            raise NeuroCanvasError(
                f"data.recording: l_freq and h_freq must lie below half the sampling rate, {raw.info['sfreq'] / 2:g} "
                f"Hz; got {edge}."
            )
    if edges == (None, None):
        return
    if recording.phase == "zero":
        raw.filter(*edges, picks="eeg", skip_by_annotation=JOINS)
        return
    joins = [
        onset for onset, label in zip(raw.annotations.onset, raw.annotations.description)
        if str(label).lower().startswith(JOINS)
    ]  # fmt: skip
    starts = np.unique([0, *raw.time_as_index(np.array(joins) - raw.first_time * (raw.info["meas_date"] is not None))])
    signal = raw.get_data(picks="eeg")
    segment = np.searchsorted(starts, np.arange(signal.shape[1]), side="right") - 1
    first = signal[:, np.clip(starts, 0, signal.shape[1] - 1)][:, segment]
    options = {"method": "iir", "phase": "forward", "iir_params": {"order": FILTER_ORDER, "ftype": "butter"}}
    raw.apply_function(lambda x: x - first, picks="eeg", channel_wise=False)
    raw.filter(*edges, picks="eeg", skip_by_annotation=JOINS, **options)
    if recording.l_freq is None:
        raw.apply_function(lambda x: x + first, picks="eeg", channel_wise=False)


def _without_eyes(raw: Any, path: Path, method: str) -> None:
    """Remove eye movements by MNE's regression on the EOG channels, or by its ICA."""
    import mne

    if "eog" not in raw.get_channel_types():
        raise NeuroCanvasError(
            f"{path}: data.recording.eog = {method!r} needs an EOG channel; there is none. Give one the type eog with "
            "data.recording.types."
        )
    if method == "regression":
        raw.set_eeg_reference([] if raw.info["custom_ref_applied"] else "average")
        raw._data[:] = mne.preprocessing.EOGRegression(picks="eeg", picks_artifact="eog").fit(raw).apply(raw)._data
        return
    ica = mne.preprocessing.ICA(n_components=0.99, random_state=0, max_iter="auto")
    ica.fit(raw.copy().filter(1.0, None))
    ica.exclude = ica.find_bads_eog(raw, measure="correlation", threshold=BLINK_CORRELATION)[0]
    ica.apply(raw)


def _check_gains(runs: Sequence[Run], deviations: Sequence[float]) -> None:
    """Raise if a run is many times larger or smaller than the others: another unit or gain."""
    typical = float(np.nanmedian(deviations))
    for run, deviation in ((run, one) for run, one in zip(runs, deviations, strict=True) if np.isfinite(one)):
        ratio = deviation / typical
        if len(runs) == 2:  # either may be wrong
            ratio = float(np.nanmax(deviations) / np.nanmin(deviations))
        if not 1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO:
            raise NeuroCanvasError(
                f"{run.path}: its standard deviation is {deviation:.3g} µV, that of the {len(runs)} runs "
                f"{typical:.3g} µV: another unit or gain. Give it a factor with data.recording.scale, or leave it out "
                "with data.recording.files."
            )


def _reader(
    cut: Callable[[int], tuple[Any, ...]], spec: TrialSpec, number: np.ndarray, place: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Make the function that reads trials: rows -> (n, n_chans, n_times); the last four runs stay in memory."""

    def read(rows: np.ndarray) -> np.ndarray:
        signal = np.empty((len(rows), len(spec.ch_names), spec.n_times), dtype=np.float32)
        for trial, row in zip(signal, rows, strict=True):
            trial[:] = cut(int(number[row]))[2][place[row]]
        return signal

    return read


# What the drop log calls the events that are no trials.
WORDS = {
    "no_onset": "not image onsets", "doubled": "held twice", "gap": "in gaps of the recording",
    "missing": "without an image", "edge": "too close to the edge of the file", "marked_bad": "in stretches marked bad",
    "not_finite": "with NaN", "flat": "with a flat channel", "amplitude": "beyond reject or flat",
}  # fmt: skip


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[name]} {words}" for name, words in WORDS.items() if counts[name])


def _named(names: Sequence[str] | dict[str, str]) -> str:
    names = [*dict.fromkeys(names)]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


@contextmanager
def _quiet(path: Path) -> Iterator[None]:
    """MNE without its messages; its errors in one line."""
    import mne

    try:
        with warnings.catch_warnings(), mne.utils.use_log_level("error"):
            warnings.simplefilter("ignore")
            yield
    except NeuroCanvasError:
        raise
    except Exception as error:  # every format and filter raises its own kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NeuroCanvasError(f"{path}: MNE cannot read it or cut trials ({reason}); get the file again.") from error
