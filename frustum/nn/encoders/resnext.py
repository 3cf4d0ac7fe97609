"""ResNeXt-50 32x4d (Xie et al., CVPR 2017) that turns images into codes, with torchvision's key names."""

from __future__ import annotations

from torch import Tensor, nn

from frustum.nn.encoders.resnet import Bottleneck, resnet_stage


class ResNeXt50(nn.Module):
    """Images (M, 3, H, W) -> codes (M, code_size); 32 groups of 4 channels in the first stage."""

    def __init__(self, code_size: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = resnet_stage(Bottleneck, 64, 64, 3, 1, groups=32, group_width=4)
        self.layer2 = resnet_stage(Bottleneck, 256, 128, 4, 2, groups=32, group_width=4)
        self.layer3 = resnet_stage(Bottleneck, 512, 256, 6, 2, groups=32, group_width=4)
        self.layer4 = resnet_stage(Bottleneck, 1024, 512, 3, 2, groups=32, group_width=4)
        self.fc = nn.Linear(2048, code_size)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))
