from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import torch
from torch import nn

from masklet.core.frames import Frame
from masklet.models.encoder import DeepBackbone, Encoder
from masklet.models.mask2former.small import StridedMobileNet
from masklet.nn.mobilenet import DeepMobileNet, MobileNetV2
from masklet.weights.store import ZOO, read_packaged

ROOT = Path(__file__).parents[2]


def test_the_packaged_weights_fill_the_network():
    net = MobileNetV2()
    net.load_state_dict(read_packaged(ZOO["mobilenetv2"]))  # strict: nothing missing, nothing left over
    assert sum(p.numel() for p in net.parameters()) == 534_464


def test_strides_and_channels():
    with torch.no_grad():
        three, six, thirteen = MobileNetV2()(torch.zeros(1, 3, 64, 96))
    assert (three.shape, six.shape, thirteen.shape) == ((1, 24, 16, 24), (1, 32, 8, 12), (1, 96, 8, 12))


def test_features_move_with_the_picture():
    net = MobileNetV2().eval()
    net.load_state_dict(read_packaged(ZOO["mobilenetv2"]))
    image = torch.randn(1, 3, 64, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        here, there = net(image)[2], net(image.roll(8, dims=3))[2]
    alike = torch.cosine_similarity(here[..., 15:17], there[..., 16:18], dim=1)
    assert (alike > 0.99).all()  # not equal: far away the border is seen


def test_a_folded_batch_norm_does_the_same():
    spec = spec_from_file_location("fetch", ROOT / "tools" / "fetch_mobilenet.py")
    fetch = module_from_spec(spec)
    spec.loader.exec_module(fetch)
    conv, norm = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5)
    nn.init.uniform_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    state = {f"c.{k}": v for k, v in conv.state_dict().items()} | {f"n.{k}": v for k, v in norm.state_dict().items()}
    weight, bias = fetch.fold(state, "c", "n")
    image = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(
            nn.functional.conv2d(image, weight, bias), norm.eval()(conv(image)), atol=1e-5, rtol=1e-4
        )


def strided(image: torch.Tensor) -> torch.Tensor:
    """Block 13 of the packaged network as the paper has it: of stride 16."""
    net = StridedMobileNet().eval()
    net.net.load_state_dict(read_packaged(ZOO["mobilenetv2"]))
    with torch.no_grad():
        return net(image).feature_maps[2]


def test_every_second_dense_feature_is_what_the_strided_network_gives():
    net = MobileNetV2().eval()
    net.load_state_dict(read_packaged(ZOO["mobilenetv2"]))
    image = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(net(image)[2][..., ::2, ::2], strided(image))


def test_the_deeper_blocks_see_what_the_strided_network_does():
    picture = np.random.default_rng(3).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    encoder, deeper = Encoder(96), DeepBackbone()
    features = encoder(Frame(0, picture))
    thirteen, last = deeper(features.keys[None].float(), features.strength[None].float())
    image, *_ = encoder._look(torch.from_numpy(picture).permute(2, 0, 1)[None])
    wanted = strided(image)
    assert thirteen.shape == (1, 96, 6, 8) and last.shape == (1, 320, 3, 4)
    assert torch.cosine_similarity(thirteen, wanted).min() > 0.999  # features are kept in half precision
    torch.testing.assert_close(thirteen.norm(dim=1), wanted.norm(dim=1), rtol=0.02, atol=0.02)


def test_the_deep_weights_fill_the_network():
    held = read_packaged(ZOO["mobilenetv2-deep"])
    assert sum(v.numel() for v in held.values()) == 1_261_472
    assert {n.split(".")[1] for n in held} == {"13", "14", "15", "16"}
    assert sum(p.numel() for p in DeepMobileNet().parameters()) == 1_742_208
