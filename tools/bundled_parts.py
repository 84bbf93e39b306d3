"""The parts of the bundled family: their sizes, their tokenizers, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurocanvas.simulation.images import GRATINGS, Grating

DRAWINGS, GRATINGS_DRAWN = 21600, 2400
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def sample_grating(*, rng: np.random.Generator) -> Grating:
    """Draw a random grating near one of the eight standard ones."""
    standard = list(GRATINGS.values())[rng.integers(len(GRATINGS))]
    return Grating(
        cycles=float(standard.cycles * rng.uniform(0.9, 1.1)),
        orientation=float((standard.orientation + rng.uniform(-8, 8)) % 180), phase=float(rng.uniform(0, 2 * np.pi)),
        contrast=float(rng.uniform(0.7, 1.0)),
    )  # fmt: skip


def clip_tokenizer(work: Path, captions: list[str]) -> Any:
    """Byte-pair tokenizer in CLIP's layout: 256 bytes, 256 word-final ones, merges learned from captions, two marks."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    folder = work / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
        learner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(CLIP_WORDS), "removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        learner.train_from_iterator(
            sorted(set(captions)),
            trainers.BpeTrainer(vocab_size=1024, end_of_word_suffix="</w>", show_progress=False),
        )
        merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
        words = [*dict.fromkeys(words), "<|startoftext|>", "<|endoftext|>"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
        marks = {
            "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
        }  # fmt: skip
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **marks})
        )
        CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    if len(tokenizer) < 500:  # transformers 5 gives a tokenizer of two tokens if it is built any other way
        raise RuntimeError(f"{folder}: the tokenizer lost its vocabulary")
    return tokenizer


def word_tokenizer(work: Path, captions: list[str]) -> Any:
    """BERT-style tokenizer with one entry per word, as BLIP wants it."""
    from transformers import BertTokenizer

    folder = work / "word_tokenizer"
    if not (folder / "tokenizer_config.json").is_file():
        import re

        words = sorted({word for caption in set(captions) for word in re.findall(r"\w+|[^\w\s]", caption)})
        letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
        vocabulary = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            "[DEC]",
            *words,
            *(x for x in letters if x not in words),
            *(f"##{x}" for x in letters),
        ]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
        BertTokenizer(vocab={w: i for i, w in enumerate(vocabulary)}, bos_token="[DEC]").save_pretrained(folder)
    return BertTokenizer.from_pretrained(folder)


def clip_model(stage: str, tokenizer: Any) -> Any:
    """`text`: one layer of the real width 768, with a vision tower that is thrown away. `judge`: a small CLIP."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    marks = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    sizes = {"text": (768, 512, 1, 12, 3), "judge": (128, 512, 2, 4, 4)}
    width, inner, layers, heads, seeing = sizes[stage]
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=77, projection_dim=128, **marks,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=seeing, num_attention_heads=4, image_size=64,
        patch_size=8, projection_dim=128,
    )  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=128))


def vae_model() -> Any:
    """64 x 64 x 3 images <-> 8 x 8 x 16 latents."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 16, 48, 96), layers_per_block=1, latent_channels=16, norm_num_groups=4,
        sample_size=64,
    )  # fmt: skip


def unet_model() -> tuple[Any, Any]:
    """The denoiser over 8 x 8 x 16 latents with text of width 768, and its noise schedule."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8, in_channels=16, out_channels=16, block_out_channels=(128, 160), layers_per_block=1,
        cross_attention_dim=768,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type=None, attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip
    return unet, DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip


def blip_model(tokenizer: Any) -> Any:
    """A small BLIP captioner."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipTextConfig, BlipVisionConfig

    text = BlipTextConfig(
        vocab_size=len(tokenizer), hidden_size=128, encoder_hidden_size=128, intermediate_size=512,
        projection_dim=128, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id, sep_token_id=tokenizer.sep_token_id, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, label_smoothing=0.0,
    )  # fmt: skip
    vision = BlipVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, image_size=64,
        patch_size=8, projection_dim=128,
    )  # fmt: skip
    parts = {"text_config": text.to_dict(), "vision_config": vision.to_dict()}
    return BlipForConditionalGeneration(BlipConfig(**parts, projection_dim=128, image_text_hidden_size=128))


def export(work: Path, target: Path, finished: Callable[[str, Any, Path], Any]) -> None:
    """Write the three folders of the family in half precision, and a sidecar with the sha256 of every file."""
    from diffusers import StableDiffusionPipeline
    from transformers import BlipImageProcessor, CLIPImageProcessor, CLIPTextModel

    from neurocanvas.artifacts import read_json, sha256, write_json

    captions = json.loads((work / "captions.json").read_text())
    words, tokenizer = word_tokenizer(work, captions), clip_tokenizer(work, captions)
    vae = finished("decoder", vae_model(), work)
    vae.register_to_config(scaling_factor=torch.load(work / "latents.pt", weights_only=True)["scale"])
    unet, scheduler = unet_model()
    unet = finished("unet", unet, work)
    trained = finished("text", clip_model("text", tokenizer), work)
    encoder = CLIPTextModel(trained.config.text_config)
    encoder.load_state_dict(trained.text_model.state_dict())
    parts = (vae.half(), encoder.half(), tokenizer, unet.half(), scheduler, None, None)
    StableDiffusionPipeline(*parts, requires_safety_checker=False).save_pretrained(target / "stable-diffusion")

    pixels: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    finished("judge", clip_model("judge", tokenizer), work).half().save_pretrained(target / "clip")
    tokenizer.save_pretrained(target / "clip")
    CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, **pixels).save_pretrained(
        target / "clip"
    )
    finished("blip", blip_model(words), work).half().save_pretrained(target / "blip")
    words.save_pretrained(target / "blip")
    BlipImageProcessor(size={"height": 64, "width": 64}, **pixels).save_pretrained(target / "blip")

    weights = sorted(target.rglob("*.safetensors"))
    before = work / "started_from.json"
    write_json(target / "card.json", {
        "name": "bundled",
        "licence": "MIT",
        "made_by": "python tools/train_bundled.py" + (" --start-from" if before.is_file() else ""),
        # the weights that training went on from, by their sha256, for the whole way can be followed in the history
        "started_from": read_json(before, "the sidecar of the earlier weights")["sha256"] if before.is_file() else None,
        "trained_on": f"{DRAWINGS} drawings and {GRATINGS_DRAWN} gratings of datasets.pictures; no photograph",
        "megabytes": round(sum(path.stat().st_size for path in weights) / 1e6, 1),
        "sha256": {str(path.relative_to(target)): sha256(path) for path in weights},
    })  # fmt: skip
