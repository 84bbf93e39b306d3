"""Training epochs of EEGNet, RGNN and MLP: the released modules in their loop, ours in ours, on the same data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import released
import torch
from bench import Row, compare, in_turn
from torch.utils.data import Subset

from neurocanvas.data.eeg_imagenet import SPEC
from neurocanvas.data.montage import CH_NAMES
from neurocanvas.decoder import Decoder
from neurocanvas.encoders.rgnn import electrode_graph

N_TRAIN, N_TEST, N_CONCEPTS, N_TIMES, BATCH = 2400, 1600, 80, 400, 80
"""One subject's trials of all concepts, in the released split."""

N_TRIALS = N_TRAIN + N_TEST

THREADS = 2


def signal() -> torch.Tensor:
    """Trials as the released file holds them, (n, 62, 501) in volts: noise with a falling spectrum."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((N_TRIALS, len(CH_NAMES), N_TIMES + 101), dtype=np.float32)
    return torch.from_numpy(noise.cumsum(axis=2) * np.float32(1e-6))


def features() -> torch.Tensor:
    """Features of the trials, (n, 62, 5)."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.standard_normal((N_TRIALS, len(CH_NAMES), 5), dtype=np.float32))


def epoch(name: str, model: torch.nn.Module, rounds: int) -> list[Row]:
    """Seconds per epoch of one classifier."""
    torch.set_num_threads(THREADS)
    from_signal = Decoder(name).takes == "signal"
    x = signal() if from_signal else features()
    numbers = np.arange(N_TRIALS) % N_CONCEPTS
    labels = [f"n{number:08d}" for number in range(N_CONCEPTS)]
    trials = [{"eeg_data": trial, "label": labels[number]} for trial, number in zip(x, numbers, strict=True)]
    whole = released.Trials(trials, labels, None if from_signal else x.transpose(1, 2).flatten(1))
    rows = np.arange(N_TRIALS)
    train, test = rows[:N_TRAIN], rows[N_TRAIN:]
    train_set, test_set = Subset(whole, train), Subset(whole, test)  # type: ignore[arg-type]  # indices as released
    window = x[:, :, 40 : 40 + N_TIMES].numpy() * np.float32(1e6) if from_signal else x.numpy()

    theirs = released.make_optimizer(model)

    def ours() -> Decoder:
        """One epoch, selected on the test trials as the released loop does: they are the validation trials here."""
        decoder = Decoder(name, "concept", epochs=1, batch_size=BATCH, device="cpu")
        return decoder.fit_prepared(window, numbers, SPEC, train=train, validation=test)

    decoder = ours()
    testing = in_turn(
        lambda: released.test_epoch_released(model, test_set, N_CONCEPTS, BATCH),
        lambda: float(np.mean(decoder.outputs(window[test]).argmax(axis=1) == numbers[test])),
        rounds=rounds,
    )
    whole_epoch = in_turn(
        lambda: released.train_epoch_released(model, train_set, theirs, N_CONCEPTS, BATCH), ours, rounds=rounds
    )
    training = (whole_epoch[0], whole_epoch[1] - testing[1])  # ours validates in every epoch
    both = (training[0] + testing[0], training[1] + testing[1])
    sizes = f"{N_CONCEPTS} concepts, batch {BATCH}, {THREADS} threads"
    return [
        compare(f"{name}_epoch", *both, "s", f"epoch as released, {N_TRAIN} trials, {N_TEST} test trials; {sizes}"),
        compare(f"{name}_epoch_training", *training, "s", f"its training alone, {N_TRAIN} trials; {sizes}"),
    ]


BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "eegnet_epoch": lambda: epoch("eegnet", released.EEGNet(N_CONCEPTS), rounds=3),
    "rgnn_epoch": lambda: epoch("rgnn", released.RGNN(electrode_graph(), N_CONCEPTS), rounds=5),
    "mlp_epoch": lambda: epoch("mlp", released.MLP(N_CONCEPTS), rounds=15),
}
