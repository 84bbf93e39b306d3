"""How long pictures take on a number of cards: a model, from the arithmetic of one picture and a rate.

    python tools/cost.py --pictures 87850 --size 512 --tflops 989 --share .4 --cards 1 4 16

The arithmetic is counted, by PyTorch, in one pass of the UNet and of the VAE's decoder of Stable Diffusion 1.4, without
numbers. `--tflops` is what the card's data sheet says for the precision, `--share` what part of that
denoising reaches: measure it with `make bench ONLY=generate` on such a card. Both are assumptions until then.
"""

from __future__ import annotations

import argparse

from full_size import UNET, VAE


def tflop_per_picture(size: int, steps: int) -> tuple[float, float]:
    """Count TFLOP of one denoising step with guidance, and of one whole picture."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**UNET).eval(), AutoencoderKL(**VAE).eval()
        latents, condition = torch.empty(2, 4, size // 8, size // 8), torch.empty(2, 77, 768)
        time = torch.empty((), dtype=torch.long)
    counts = []
    for call in (lambda: unet(latents, time, encoder_hidden_states=condition), lambda: vae.decode(latents[:1])):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call()
        counts.append(counter.get_total_flops() / 1e12)
    return counts[0], steps * counts[0] + counts[1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=87_850)
    parser.add_argument("--size", type=int, default=512, help="px")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tflops", type=float, default=989.0, help="of one card, in the precision that is used")
    parser.add_argument("--share", type=float, default=0.4, help="of that, what denoising reaches")
    parser.add_argument("--cards", type=int, nargs="+", default=[1, 4, 16, 64])
    asked = parser.parse_args()
    step, picture = tflop_per_picture(asked.size, asked.steps)
    seconds = picture / (asked.tflops * asked.share)
    print(f"{step:.2f} TFLOP a step with guidance, {picture:.1f} a picture of {asked.size} px in {asked.steps} steps")
    print(f"{seconds:.3f} s a picture at {asked.share:.0%} of {asked.tflops:g} TFLOP/s (assumed, not measured)\n")
    print(f"| cards | hours for {asked.pictures:,} pictures |\n|---|---|")
    for cards in asked.cards:
        print(f"| {cards} | {asked.pictures * seconds / cards / 3600:.2g} |")


if __name__ == "__main__":
    main()
