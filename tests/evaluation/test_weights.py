"""Loading networks: from folders and caches, never from the network unless asked, never another one instead.

torchvision and torch-fidelity are stand-ins here: the real ones need CUDA libraries that a machine for tests may lack.
"""

import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from neurocanvas.evaluation.feature_networks import (
    FEATURE_NETWORKS,
    NotComputed,
    extract_features,
    load_network,
    lpips,
)


def pictures(n: int = 2, size: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(n, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tiny_transformers(tmp_path_factory):
    """Folders of tiny random networks with their processors: CLIP, DINOv2 and a classifier."""
    import transformers as hf

    root, made = tmp_path_factory.mktemp("networks"), {}
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = hf.CLIPVisionConfig(**tiny, intermediate_size=32, image_size=224, patch_size=32, projection_dim=8)
    vit = hf.ViTConfig(**tiny, intermediate_size=32, image_size=24, patch_size=8, num_labels=60)
    dino_sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}}
    for name, model, kind, sizes in (
        ("clip", hf.CLIPVisionModelWithProjection(vision), "CLIP", {"size": {"shortest_edge": 224}}),
        ("dinov2", hf.Dinov2Model(hf.Dinov2Config(**tiny, image_size=28)), "Bit", dino_sizes),
        ("imagenet-transformers", hf.ViTForImageClassification(vit), "ViT", {"size": {"height": 24, "width": 24}}),
    ):
        made[name] = model
        model.save_pretrained(root / name)
        processor = getattr(hf, f"{kind}ImageProcessorPil", None) or getattr(hf, f"{kind}ImageProcessor")
        processor(**sizes).save_pretrained(root / name)
    return root, made


@pytest.mark.parametrize(("name", "width"), [("clip", 8), ("dinov2", 16), ("imagenet-transformers", 60)])
def test_networks_of_transformers_come_out_of_a_folder(tiny_transformers, name, width):
    root, made = tiny_transformers
    prepare, forward = load_network(FEATURE_NETWORKS[name], folder=str(root / name))
    features = extract_features(pictures(), prepare, forward)
    assert features.shape == (2, width)
    pixels = prepare(pictures())
    with torch.inference_mode():
        expected = getattr(made[name].eval()(pixel_values=pixels), FEATURE_NETWORKS[name].layers[0])
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_the_networks_own_processor_prepares_where_no_other_is_named(tiny_transformers):
    from transformers import AutoImageProcessor

    root, _ = tiny_transformers
    values = pictures(size=60)
    prepare, _ = load_network(FEATURE_NETWORKS["dinov2"], folder=str(root / "dinov2"))
    processor = AutoImageProcessor.from_pretrained(root / "dinov2", backend="pil")
    own = processor(images=list(values), return_tensors="pt")["pixel_values"]
    assert own.shape == (2, 3, 28, 28)
    torch.testing.assert_close(prepare(values), own)
    # MindEye's CLIP is not given what CLIP's processor makes: no crop, no bicubic interpolation, 256 pixels first
    prepare, _ = load_network(FEATURE_NETWORKS["clip"], folder=str(root / "clip"))
    processor = AutoImageProcessor.from_pretrained(root / "clip", backend="pil")
    own = processor(images=list(values), return_tensors="pt")["pixel_values"]
    assert prepare(values).shape == own.shape and abs(prepare(values) - own).max() > 0.05


def reason(name, **how):
    """Why a network is not computed."""
    with pytest.raises(NotComputed) as caught:
        load_network(FEATURE_NETWORKS[name], **how)
    return str(caught.value)


def test_without_weights_it_is_not_computed_and_nothing_is_fetched(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("fetched"))
    assert reason("clip-vit-h").startswith("laion/CLIP-ViT-H-14-laion2B-s32B-b79K is not in the cache")
    assert "weights cannot be loaded" in reason("clip", folder=str(tmp_path))


class TinyAlexNet(torch.nn.Module):
    """AlexNet's modules in their order, with few channels."""

    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(4, 5, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(5, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 7, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(7, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.fc = nn.Linear(32, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.fc(self.avgpool(self.features(pixels)).flatten(1))


@pytest.fixture
def torchvision(monkeypatch):
    """A stand-in that builds tiny networks where torchvision would build the real ones."""
    built, files = [], {"AlexNet": "alexnet", "Inception_V3": "inception", "EfficientNet_B1": "efficientnet"}

    def get_model(name, weights, **options):
        built.append(options)
        assert weights is None, "torchvision would fetch them"
        return TinyAlexNet()

    def get_weight(name):
        family, _, version = name.partition("_Weights.")
        assert version.startswith("IMAGENET1K_")
        return SimpleNamespace(url=f"https://weights.example/{files.get(family, 'vit')}.pth")

    class Extractor(torch.nn.Module):
        def __init__(self, model, layers):
            super().__init__()
            self.model, self.layers = model, sorted(layers)

        def forward(self, pixels):
            outputs = {}
            for name in self.layers:
                self.model.get_submodule("fc" if name == "heads" else name).register_forward_hook(
                    lambda _module, _inputs, output, name=name: outputs.update({name: output.clone()})
                )
            self.model(pixels)
            return outputs

    models = SimpleNamespace(get_model=get_model, get_weight=get_weight)
    extraction = SimpleNamespace(create_feature_extractor=Extractor)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    monkeypatch.setitem(sys.modules, "torchvision.models.feature_extraction", extraction)
    return built


FILES = {"alexnet2": "alexnet.pth", "alexnet5": "alexnet.pth", "inception": "inception.pth", "imagenet": "vit.pth",
         "efficientnet-b1": "efficientnet.pth", "swav": "swav_800ep_pretrain.pth.tar"}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_networks_of_torchvision_are_filled_from_the_file_and_read_at_their_layer(torchvision, tmp_path, name):
    torch.manual_seed(0)
    network, real = FEATURE_NETWORKS[name], TinyAlexNet().eval()
    state = real.state_dict()
    if name == "swav":  # its file names a wrapper, lacks the classifier and has heads of its own
        state = {f"module.{key}": values for key, values in state.items() if not key.startswith("fc.")}
        state["module.prototypes.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / FILES[name])
    (prepare, forward), [layer] = load_network(network, folder=str(tmp_path)), network.layers
    assert torchvision == [dict(network.options)]
    pixels = prepare(pictures())
    with torch.inference_mode():
        part = real if layer == "heads" else real.features[: int(layer[9:]) + 1] if "." in layer else None
        expected = part(pixels) if part is not None else real.avgpool(real.features(pixels))
    features = extract_features(pictures(), prepare, forward)
    np.testing.assert_allclose(features, expected.flatten(1), atol=1e-5)
    assert layer == "heads" or features.min() >= 0, "after the rectifier"


def test_files_of_other_networks_and_missing_files_are_told_apart(torchvision, tmp_path):
    assert (
        reason("alexnet2", folder=str(tmp_path))
        == f"alexnet.pth is not in {tmp_path}; put it there, or allow downloads"
    )
    torch.save({**TinyAlexNet().state_dict(), "other.weight": torch.zeros(1)}, tmp_path / "alexnet.pth")
    assert "other.weight and 0 more do not fit" in reason("alexnet2", folder=str(tmp_path))
    (tmp_path / "alexnet.pth").write_bytes(b"no weights")
    assert "no weights of this network" in reason("alexnet2", folder=str(tmp_path))


def test_downloads_happen_only_when_they_are_allowed(torchvision, tmp_path, monkeypatch):
    fetched = []

    def fetch(url, file, progress):
        fetched.append(url)
        torch.save(TinyAlexNet().state_dict(), file)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    assert "allow downloads" in reason("alexnet5") and not fetched
    load_network(FEATURE_NETWORKS["alexnet5"], download=True)
    assert (tmp_path / "hub" / "checkpoints" / "alexnet.pth").is_file() and len(fetched) == 1
    load_network(FEATURE_NETWORKS["alexnet5"])
    assert len(fetched) == 1, "the second time it is there"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module named 'torchvision'", name="torchvision"),
            "torchvision is not installed: pip install 'neurocanvas[metrics]'",
        ),
        (
            RuntimeError("operator torchvision::nms does not exist"),
            "torchvision is installed but does not work (operator torchvision::nms does not exist); install the "
            f"release for torch {torch.__version__}",
        ),
    ],
)
def test_a_missing_and_a_broken_torchvision_are_different_reasons(monkeypatch, error, message):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name.startswith("torchvision"):
                raise error

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert reason("swav") == message


def test_the_inception_of_fid_is_given_8_bit_pictures(monkeypatch, tmp_path):
    made = []

    class Inception(torch.nn.Module):
        def __init__(self, name, features_list, feature_extractor_weights_path=None):
            super().__init__()
            made.append((name, features_list, feature_extractor_weights_path))

        def forward(self, pixels):
            made.append(pixels)
            return (pixels.float().mean(dim=(2, 3)),)

    package = SimpleNamespace(FeatureExtractorInceptionV3=Inception)
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace(feature_extractor_inceptionv3=package))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", package)
    assert "is not in" in reason("fid-64", folder=str(tmp_path))
    file = tmp_path / "weights-inception-2015-12-05-6726825d.pth"
    file.touch()
    features = extract_features(pictures(), *load_network(FEATURE_NETWORKS["fid-2048"], folder=str(tmp_path)))
    assert made[0] == ("inception-v3-compat", ["2048"], str(file)) and made[1].dtype == torch.uint8
    np.testing.assert_allclose(features, pictures().mean(axis=(1, 2)), rtol=1e-5)


def test_lpips_is_its_formula_with_torchmetrics_heads(monkeypatch):
    """AlexNet is one that torchvision's stand-in builds: of the real widths, with random weights."""
    package = pytest.importorskip("torchmetrics.functional.image.lpips")
    nn = torch.nn

    def alexnet(weights=None, pretrained=False):  # torchmetrics before 1.5 asks with `pretrained`
        widths, layers = (3, 64, 192, 384, 256, 256), []
        for number, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()] + [nn.MaxPool2d(2)] * (number < 2)
        return SimpleNamespace(features=nn.Sequential(*layers))

    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=SimpleNamespace(alexnet=alexnet)))
    monkeypatch.setattr(package, "_TORCHVISION_AVAILABLE", True)
    torch.manual_seed(0)
    layers = alexnet().features.eval()

    def forward(pixels):
        outputs = [pixels]
        for layer in layers:
            outputs.append(layer(outputs[-1]))
        return tuple(outputs[row] for row in (2, 5, 8, 10, 12))

    generated, seen = pictures(5, 24), pictures(5, 24)[::-1]
    found = lpips(generated, seen, FEATURE_NETWORKS["lpips"].prepare, forward, batch_size=2)
    heads = torch.load(Path(package.__file__).parent / "lpips_models" / "alex.pth", "cpu", weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    sides, expected = [], 0
    with torch.inference_mode():
        for images in (generated, seen):
            resized = FEATURE_NETWORKS["lpips"].prepare(images).permute(0, 2, 3, 1)
            sides.append(forward(((resized - shift) / scale).permute(0, 3, 1, 2)))
        for number, (a, b) in enumerate(zip(*sides, strict=True)):
            difference = (nn.functional.normalize(a) - nn.functional.normalize(b)) ** 2
            expected += (difference * heads[f"lin{number}.model.1.weight"]).sum(1).mean(dim=(1, 2))
    np.testing.assert_allclose(found, expected, atol=1e-4)  # torchmetrics adds 1e-8 under the root
    assert found[2] == 0 and (found[[0, 1, 3, 4]] > 0.001).all()
