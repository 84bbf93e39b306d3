"""What a drawing may start from: small pictures that ridge regression predicts, colours and light without content."""

from __future__ import annotations

import numpy as np

from neurocanvas import store
from neurocanvas.datasets.splits import make_splits
from neurocanvas.models import EEGSpec, RidgeMapper, TargetBasis
from neurocanvas.models.base import standardisation
from neurocanvas.stages.mapping import asked, pooled_features_paths, read_pooled_features
from neurocanvas.stages.run import Run

# Of the small pictures, px.
SIDE = 16

# Principal coordinates of the training pictures that are predicted.
COMPONENTS = 64


def sketch(run: Run, subject: int) -> np.ndarray:
    """Predict a small picture for every test trial, from pictures of the training trials of its fold."""
    from neurocanvas.generation.conditioning import gain, rescale

    path = run.folder / "predictions" / f"s{subject}_sketch.npy"
    card, stimuli = store.read_card(path.with_name(f"s{subject}.npy")), run.dataset[1]
    features_of = [store.read_card(file)["sha256"] for file in pooled_features_paths(run, subject)]
    seen = stimuli.fingerprint()
    inputs = store.fingerprint("sketch", card["fingerprint"], features_of, seen, run.stimuli)
    if store.is_done(path, inputs):
        return store.read_array(path, "small pictures")
    pictures = np.stack([stimuli.picture(name, size=SIDE) for name in run.stimuli]).reshape(-1, SIDE * SIDE, 3) / 255
    pool, (values, features) = run.pool(subject), read_pooled_features(run, subject)
    shown, average = run.stimulus_rows(pool), run.settings.split.average_test
    spec = EEGSpec(tuple(features["ch_names"]), tuple(features["bands"]), pictures.shape[1:])
    rows, found = [], []
    for split in (split.joined() for split in make_splits(pool, run.settings.split, subject)):
        basis = TargetBasis.fit(pictures, np.bincount(shown[split.train], minlength=len(pictures)), COMPONENTS)
        mapper = RidgeMapper(spec, basis, *standardisation(spec.check(values[split.train])))
        x, y = mapper.standardise(values), basis.transform(pictures)[shown]
        mapper.fit(x[split.train], y[split.train], x[split.val], y[split.val])
        spread = mapper.coordinates(asked(values, pool, split.val, average)[0]).std(axis=0)
        features_of_test, of_test, _ = asked(values, pool, split.test, average)
        gains = np.full(len(of_test), gain(basis.target_sd, spread))
        found.append(rescale(mapper.predict(features_of_test), basis.mean, gains))
        rows.append(of_test)
    order = np.argsort(np.concatenate(rows), kind="stable")
    drawn = np.clip(np.concatenate(found)[order], 0, 1).reshape(-1, SIDE, SIDE, 3)
    store.write_array(path, np.round(drawn * 255).astype(np.uint8), inputs)
    return store.read_array(path, "small pictures")
