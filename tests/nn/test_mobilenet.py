import torch

from masklet.models.zoo import ZOO, read
from masklet.nn.mobilenet import MobileNetV2


def test_the_packaged_weights_fill_the_network():
    net = MobileNetV2()
    net.load_state_dict(read(ZOO["mobilenetv2"]))  # strict: nothing missing, nothing left over
    assert sum(p.numel() for p in net.parameters()) == 534_272


def test_strides_and_channels():
    with torch.no_grad():
        three, six, thirteen = MobileNetV2()(torch.zeros(1, 3, 64, 96))
    assert (three.shape, six.shape, thirteen.shape) == ((1, 24, 16, 24), (1, 32, 8, 12), (1, 96, 8, 12))


def test_features_move_with_the_picture():
    net = MobileNetV2().eval()
    net.load_state_dict(read(ZOO["mobilenetv2"]))
    image = torch.randn(1, 3, 64, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        here, there = net(image)[2], net(image.roll(8, dims=3))[2]
    # Beyond the reach of the border: 13 blocks of which the last seven see 16 cells to each side.
    middle = slice(15, 17)
    torch.testing.assert_close(here[..., middle], there[..., 16:18], atol=0.05, rtol=0.05)
