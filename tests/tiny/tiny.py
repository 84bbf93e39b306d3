"""A small run: its settings, its true captions, and its files."""

from pathlib import Path

# Settings of a run whose every stage takes a moment: 24 trials of 4 concepts, 8 of them held out.
TINY = {
    "name": "tiny",
    "simulate": {"concepts": 4, "trials_per_concept": 6, "explained_variance": 0.5},
    "split": {"test_fraction": 0.34, "val_fraction": 0.25},
    "encoder": {"hidden": [16, 16, 16], "epochs": 12, "patience": 12, "baselines": ["ridge", "mean"]},
    "generate": {"steps": 2, "shard": 3},
    "evaluate": {"permutations": 99, "resamples": 100},
}


def tiny_settings(**sections):
    """`TINY` as RunSettings, with some keys of its sections replaced, or left out (None)."""
    from neurocanvas.config import RunSettings

    merged = {name: TINY.get(name, {}) | keys for name, keys in sections.items() if isinstance(keys, dict)}
    return RunSettings.model_validate(TINY | sections | merged)


def embed_captions(captions, family="bundled"):
    from neurocanvas.targets.clip import encode_distinct, load_text_encoder

    return encode_distinct(captions, load_text_encoder(family))


def true_captions(settings):
    """The captions that simulated images were drawn from."""
    from neurocanvas.simulation.dataset import draw_stimuli

    return {one.name: one.drawing.caption for one in draw_stimuli(settings) if one.drawing is not None}


def write_true_captions(run):
    # so that tests of other stages do not depend on how well the captioner describes two dozen images
    from neurocanvas import artifacts
    from neurocanvas.targets.captions import write_captions
    from neurocanvas.targets.pretrained import find_family, source_hash

    true, path = true_captions(run.settings.simulate), run.folder / "targets" / "caption.txt"
    write_captions(path, {name: true[name] for name in run.stimuli})
    prints = {name: run.images.file_hash(name) for name in run.stimuli}
    made_by = source_hash(find_family(run.settings.family).captioner)
    recipe = run.settings.caption.recipe
    keys = [artifacts.fingerprint("caption", made_by, recipe, prints[name] or name) for name in run.stimuli]
    artifacts.write_sidecar(path, artifacts.fingerprint("caption", run.stimuli, keys), {"images": prints})


def written_files(folder: Path) -> dict[str, bytes]:
    """Every file of a run but the log, by its path in the run folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "log.jsonl"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Trap:
    """What unpickling would run: it opens a file to write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), "w")


def trial_spec(n_chans=62, n_times=501, sfreq=1000.0, n_bands=0):
    """What an encoder is built from: channels of EEG-ImageNet, and bands for encoders of features."""
    from neurocanvas.data.montage import BANDS, CH_NAMES
    from neurocanvas.data.trials import TrialSpec

    return TrialSpec(CH_NAMES[:n_chans], sfreq, 0.0, n_times, tuple(BANDS)[:n_bands])


def concepts(count):
    """The target space of so many concepts."""
    from neurocanvas.targets import TargetSpace

    return TargetSpace("concept", (count,))


class Planted:
    """An object that is no estimator, and would leave a file if something in it were called."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __setstate__(self, state):
        Path(state["path"]).write_text("ran")
