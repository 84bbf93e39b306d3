"""Train the bundled family on the image world: text encoder, VAE, UNet, captioner and judge.

    python tools/train_bundled.py --work build/bundled                 # every stage, in order, then export
    python tools/train_bundled.py --work build/bundled --stages vae    # one stage
    python tools/train_bundled.py --work build/bundled --minutes 20    # a slice: call again to go on where it stopped
    python tools/train_bundled.py --work build/bundled --start-from src/neurocanvas/bundled    # train these further

Each stage has a fixed number of steps, and the batch of step k depends on the seed and k alone, so a run cut into
slices ends with the same weights as one that was not (same machine, device and thread count). A checkpoint is written
every minute. With `--start-from`, the UNet and the VAE's decoder start from the weights of a family in that folder, and
its other networks count as finished. `export` writes half-precision safetensors in Hugging Face layout with a sidecar
and sha256 into `src/neurocanvas/bundled`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from bundled_parts import (
    DRAWINGS,
    GRATINGS_DRAWN,
    blip_model,
    clip_model,
    clip_tokenizer,
    export,
    sample_grating,
    unet_model,
    vae_model,
    word_tokenizer,
)  # fmt: skip
from torch import nn
from torch.nn import functional as F

from neurocanvas.artifacts import read_json, write_json
from neurocanvas.simulation.images import CONCEPTS, render, sample_drawing

STEPS = {"text": 200, "vae": 6400, "judge": 900, "blip": 1200, "decoder": 6000, "unet": 7000}
BATCH = {"text": 96, "vae": 8, "judge": 128, "blip": 64, "decoder": 8, "unet": 64}
RATE = {"text": 5e-4, "vae": 2e-3, "judge": 8e-4, "blip": 1e-3, "decoder": 1e-3, "unet": 6e-4}
SECOND_CYCLE = {"vae": 4000}  # the step at which the learning rate starts anew
EMA = {"unet": 0.998, "vae": 0.995, "decoder": 0.995}
SEED = 20261122
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def picture_set(work: Path) -> tuple[np.ndarray, list[str]]:
    """Draw the training images once: (n, 64, 64, 3) uint8 and their true captions."""
    pictures, captions = work / "pictures.npy", work / "captions.json"
    if not captions.is_file():
        drawn = []
        wnids = list(CONCEPTS)
        for index in range(DRAWINGS):
            drawn.append(sample_drawing(wnids[index % len(wnids)], rng=np.random.default_rng((SEED, index))))
        drawn += [sample_grating(rng=np.random.default_rng((SEED, 10**6 + i))) for i in range(GRATINGS_DRAWN)]
        np.save(pictures, np.stack([render(picture) for picture in drawn]))
        captions.write_text(json.dumps([picture.caption for picture in drawn]))
    return np.load(pictures, mmap_mode="r"), json.loads(captions.read_text())


def class_prompt(index: int, caption: str) -> str:
    """What a class-name prompt would say of training image `index`."""
    if index >= DRAWINGS:
        return f"a photo of {caption}"
    return f"a photo of a {list(CONCEPTS.values())[index % len(CONCEPTS)].name}"


def as_tensor(pictures: np.ndarray) -> torch.Tensor:
    """Images in uint8 -> (n, 3, 64, 64) in -1..1, the range of the VAE, CLIP and BLIP alike."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1).to(DEVICE)


def randomness(step: int) -> tuple[np.random.Generator, torch.Generator]:
    """What step `step` of any stage draws from."""
    return np.random.default_rng((SEED, step)), torch.Generator().manual_seed(SEED + step)


def learning_rate(stage: str, step: int) -> float:
    """Warm up over 100 steps, stay, and come down along a cosine over the last 40 % of each cycle."""
    cycle = SECOND_CYCLE.get(stage, STEPS[stage])
    if step >= cycle:
        step, total = step - cycle, STEPS[stage] - cycle
    else:
        total = cycle
    down = max(0.0, (step - 0.6 * total) / (0.4 * total))
    return RATE[stage] * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, down))))


def train(
    stage: str,
    model: nn.Module,
    loss_of: Callable[[int], torch.Tensor],
    work: Path,
    until: float,
) -> bool:
    """Run the steps of a stage from its last checkpoint; return True when all are done."""
    path = work / f"{stage}.pt"
    decay = EMA.get(stage)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE[stage], betas=(0.9, 0.98), weight_decay=0.01)
    state = torch.load(path, map_location=DEVICE, weights_only=True) if path.is_file() else {"step": 0}
    if "model" in state:
        model.load_state_dict(state["model"])
    if "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
    average = state.get("average") or {k: v.clone() for k, v in model.state_dict().items()}
    step, saved, losses = state["step"], time.monotonic(), []

    def save() -> None:
        parts = {
            "step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average,
        }  # fmt: skip
        torch.save(parts, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    while step < STEPS[stage] and time.monotonic() < until:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(stage, step)
        loss = loss_of(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        losses.append(loss.item())
        with torch.no_grad():
            follow = min(decay, step / (step + 10)) if decay else 0.0
            for name, value in model.state_dict().items():
                if value.dtype.is_floating_point:
                    average[name].lerp_(value, 1 - follow)
                else:
                    average[name].copy_(value)
        if step % 50 == 0:
            print(
                f"{stage} step {step}/{STEPS[stage]} loss {np.mean(losses[-50:]):.4f} {time.strftime('%H:%M:%S')}",
                flush=True,
            )
        if time.monotonic() - saved > 60:
            save()
            saved = time.monotonic()
    save()
    return step >= STEPS[stage]


def finished(stage: str, model: nn.Module, work: Path) -> nn.Module:
    """The model of a stage with its averaged weights, frozen."""
    model.load_state_dict(torch.load(work / f"{stage}.pt", map_location=DEVICE, weights_only=True)["average"])
    return model.to(DEVICE).eval().requires_grad_(False)


def train_clip(stage: str, work: Path, until: float) -> bool:
    """Contrastive training of captions against images; `text` keeps only the text tower, `judge` keeps both.

    Positions are pooled at random among the caption's end and the padding behind it, so that the padding,
    most of the 77 tokens, carries the sentence too.
    """
    pictures, captions = picture_set(work)
    tokenizer = clip_tokenizer(work, captions)
    torch.manual_seed(SEED)
    model = clip_model(stage, tokenizer).to(DEVICE).train()
    prompts = [class_prompt(index, caption) for index, caption in enumerate(captions)]
    ids = torch.tensor(tokenizer(captions + prompts, padding="max_length", max_length=32, truncation=True).input_ids)
    ends = (ids == tokenizer.eos_token_id).int().argmax(1)
    texts = np.unique(captions + prompts, return_inverse=True)[1]

    def loss_of(step: int) -> torch.Tensor:
        rng, generator = randomness(step)
        rows = rng.choice(len(captions), BATCH[stage], replace=False)
        said = rows + len(captions) * (rng.random(len(rows)) < 0.25)
        hidden = model.text_model(input_ids=ids[said].to(DEVICE)).last_hidden_state
        at = ends[said] + (torch.rand(len(rows), generator=generator) * (32 - ends[said]) * 0.999).long()
        text = F.normalize(model.text_projection(hidden[torch.arange(len(rows)), at]), dim=-1)
        seen = model.vision_model(
            pixel_values=as_tensor(pictures[np.sort(rows)])[np.argsort(np.argsort(rows))]
        ).pooler_output
        image = F.normalize(model.visual_projection(seen), dim=-1)
        logits = model.logit_scale.exp().clamp(max=100) * text @ image.T
        true = (texts[said][:, None] == texts[rows]) | (texts[said][:, None] == texts[rows + len(captions)])
        same = torch.from_numpy(true).float().to(DEVICE)
        return (soft_cross_entropy(logits, same) + soft_cross_entropy(logits.T, same.T)) / 2

    return train(stage, model, loss_of, work, until)


def soft_cross_entropy(logits: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Cross-entropy whose right answers are all the pairs in which the text is true of the image."""
    return -(F.log_softmax(logits, dim=-1) * same / same.sum(-1, keepdim=True)).sum(-1).mean()


def train_vae(work: Path, until: float) -> bool:
    """Reconstruction (absolute + squared error) with a slight pull of the latents to a unit Gaussian.

    The pull shapes the latents in the first cycle and silences some of their channels; the second cycle all but
    drops it, so that they come back and carry detail.
    """
    pictures, _ = picture_set(work)
    torch.manual_seed(SEED + 1)
    model = vae_model().to(DEVICE).train()

    def loss_of(step: int) -> torch.Tensor:
        rng, generator = randomness(step)
        seen = as_tensor(pictures[np.sort(rng.choice(len(pictures), BATCH["vae"], replace=False))])
        latent = model.encode(seen).latent_dist
        sample = latent.mean + latent.std * torch.randn(latent.mean.shape, generator=generator).to(DEVICE)
        error = model.decode(sample).sample - seen
        divergence = latent.kl().mean() / latent.mean[0].numel()
        if step < SECOND_CYCLE["vae"]:
            return error.abs().mean() + 2 * error.square().mean() + 1e-3 * divergence
        return error.abs().mean() / 2 + 10 * error.square().mean() + 1e-5 * divergence

    return train("vae", model, loss_of, work, until)


def train_blip(work: Path, until: float) -> bool:
    """Captioning: next-word cross-entropy given the image."""
    pictures, captions = picture_set(work)
    tokenizer = word_tokenizer(work, captions)
    torch.manual_seed(SEED + 2)
    model = blip_model(tokenizer).to(DEVICE).train()
    ids = torch.tensor(tokenizer(captions, padding=True).input_ids)
    ids[:, 0] = tokenizer.bos_token_id

    def loss_of(step: int) -> torch.Tensor:
        rng, _ = randomness(step)
        rows = np.sort(rng.choice(len(ids), BATCH["blip"], replace=False))
        words = ids[rows].to(DEVICE)
        labels = words.masked_fill(words == tokenizer.pad_token_id, -100)
        return model(
            pixel_values=as_tensor(pictures[rows]),
            input_ids=words,
            attention_mask=(words != tokenizer.pad_token_id).long(),
            labels=labels,
        ).loss

    return train("blip", model, loss_of, work, until)


@torch.no_grad()
def cached_latents(work: Path) -> torch.Tensor:
    """Latents of every training image, scaled to unit variance; the scale goes into the VAE's config at export."""
    path = work / "latents.pt"
    if not path.is_file():
        pictures, _ = picture_set(work)
        vae = finished("vae", vae_model(), work)
        parts = [
            vae.encode(as_tensor(pictures[i : i + 64])).latent_dist.mean.cpu() for i in range(0, len(pictures), 64)
        ]
        latents = torch.cat(parts)
        torch.save({"latents": latents / latents.std(), "scale": 1 / latents.std().item()}, path)
    return torch.load(path, weights_only=True)["latents"]


@torch.no_grad()
def cached_conditions(work: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of every text, in half precision (row 0: the empty one); rows of each caption and prompt."""
    _, captions = picture_set(work)
    prompts = [class_prompt(index, caption) for index, caption in enumerate(captions)]
    distinct = ["", *sorted({*captions, *prompts})]
    row = {text: index for index, text in enumerate(distinct)}
    rows = torch.tensor([[row[text] for text in pair] for pair in zip(captions, prompts)])
    path = work / "conditions.pt"
    if not path.is_file():
        tokenizer = clip_tokenizer(work, captions)
        encoder = finished("text", clip_model("text", tokenizer), work).text_model
        batches = (distinct[i : i + 128] for i in range(0, len(distinct), 128))
        ids: Iterator[torch.Tensor] = (
            torch.tensor(tokenizer(b, padding="max_length", max_length=77).input_ids) for b in batches
        )
        torch.save(torch.cat([encoder(input_ids=i.to(DEVICE)).last_hidden_state.half().cpu() for i in ids]), path)
    return torch.load(path, weights_only=True, mmap=True), rows


def train_decoder(work: Path, until: float) -> bool:
    """Sharpen the VAE's decoder alone: the latents, and so the UNet, stay as they are."""
    (pictures, _), latents = picture_set(work), cached_latents(work)
    scale = torch.load(work / "latents.pt", weights_only=True)["scale"]
    model = finished("vae", vae_model(), work)
    model.decoder.requires_grad_(True).train()
    model.post_quant_conv.requires_grad_(True)

    def loss_of(step: int) -> torch.Tensor:
        rng, generator = randomness(step)
        rows = np.sort(rng.choice(len(pictures), BATCH["decoder"], replace=False))
        sample = latents[rows] + 0.02 * torch.randn(latents[rows].shape, generator=generator)
        error = model.decode((sample / scale).to(DEVICE)).sample - as_tensor(pictures[rows])
        return error.abs().mean() / 2 + 10 * error.square().mean()

    return train("decoder", model, loss_of, work, until)


def train_unet(work: Path, until: float) -> bool:
    """Velocity prediction with dropped captions (for guidance) and uncertain ones (predictions are never pure).

    An uncertain condition is what an encoder gives whose predictions were scaled up to the variance of the targets:
    mean + r (true - mean) + sqrt(1 - r²) noise, where the noise has the covariance of the targets.
    """
    latents, (conditions, row_of) = cached_latents(work), cached_conditions(work)
    torch.manual_seed(SEED + 3)
    model, scheduler = unet_model()
    model = model.to(DEVICE).train()
    alphas = scheduler.alphas_cumprod
    count = BATCH["unet"]
    mean = conditions[row_of[::10, 0]].float().mean(dim=0)

    def loss_of(step: int) -> torch.Tensor:
        rng, generator = randomness(step)
        rows = torch.from_numpy(rng.choice(len(latents), count, replace=False))
        draw = torch.from_numpy(rng.random(count))
        wanted = torch.where(draw < 0.1, 0, torch.where(draw < 0.2, row_of[rows, 1], row_of[rows, 0]))
        condition = conditions[wanted].float()
        certainty = torch.from_numpy(np.where(rng.random(count) < 0.35, rng.uniform(0.2, 1, count), 1.0)).float()
        certainty = torch.where(wanted == 0, 1.0, certainty)
        others = torch.randn((count, count), generator=generator).fill_diagonal_(0) * (wanted != 0) / count**0.5
        blend = torch.diag(certainty) + (1 - certainty**2).sqrt()[:, None] * others
        mixed = torch.einsum("ij,jtw->itw", blend, condition - mean) + mean
        condition = torch.where((certainty < 1)[:, None, None], mixed, condition)
        noise = torch.randn(latents[rows].shape, generator=generator)
        times = torch.randint(0, len(alphas), (count,), generator=generator)
        signal, spread = alphas[times].sqrt().view(-1, 1, 1, 1), (1 - alphas[times]).sqrt().view(-1, 1, 1, 1)
        noisy = (signal * latents[rows] + spread * noise).to(DEVICE)
        velocity = signal * noise - spread * latents[rows]
        with torch.autocast(DEVICE, torch.bfloat16):  # a third faster on a CPU that has it, much slower on one without
            predicted = model(noisy, times.to(DEVICE), condition.to(DEVICE)).sample
        return F.mse_loss(predicted.float(), velocity.to(DEVICE))

    return train("unet", model, loss_of, work, until)


def start_from(folder: Path, work: Path) -> None:
    """Take the networks of a family as the state from which training goes on; a state in `work` stays as it is."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import BlipForConditionalGeneration, CLIPModel, CLIPTextModel

    diffusion = folder / "stable-diffusion"
    _, captions = picture_set(work)
    tokenizer = clip_tokenizer(work, captions)
    text = clip_model("text", tokenizer)
    text.text_model.load_state_dict(CLIPTextModel.from_pretrained(diffusion / "text_encoder").float().state_dict())
    vae = AutoencoderKL.from_pretrained(diffusion / "vae")
    networks = {
        "text": text, "vae": vae, "decoder": vae, "unet": UNet2DConditionModel.from_pretrained(diffusion / "unet"),
        "judge": CLIPModel.from_pretrained(folder / "clip"),
        "blip": BlipForConditionalGeneration.from_pretrained(folder / "blip"),
    }  # fmt: skip
    before = work / "started_from.json"
    if not before.is_file():
        write_json(before, read_json(folder / "card.json", "the sidecar of the family to start from"))
    for stage, network in networks.items():
        if not (work / f"{stage}.pt").is_file():
            weights = network.float().state_dict()
            step = 0 if stage in ("unet", "decoder") else STEPS[stage]
            torch.save({"step": step, "model": weights, "average": weights}, work / f"{stage}.pt")


TRAINERS: dict[str, Callable[[Path, float], bool]] = {
    "text": lambda work, until: train_clip("text", work, until), "vae": train_vae,
    "judge": lambda work, until: train_clip("judge", work, until), "blip": train_blip, "decoder": train_decoder,
    "unet": train_unet,
}  # fmt: skip


def main() -> None:
    """Train the stages asked for, in order, and export when all are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/bundled"), help="checkpoints and caches")
    parser.add_argument("--stages", nargs="*", default=[*TRAINERS, "export"], choices=[*TRAINERS, "export"])
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long; call again to go on")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; all by default")
    parser.add_argument("--start-from", type=Path, help="folder of a family whose UNet and decoder are trained further")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.start_from:
        start_from(options.start_from, options.work)
    until = time.monotonic() + 60 * options.minutes
    for stage in options.stages:
        if stage == "export":
            export(options.work, Path(__file__).parents[1] / "src/neurocanvas/bundled", finished)
        elif not TRAINERS[stage](options.work, until):
            return
        print(f"{stage} done", flush=True)


if __name__ == "__main__":
    main()
