"""The building blocks of YOLOv5 networks, named as in its checkpoints so that their weights find them."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Conv(nn.Module):  # type: ignore[misc]
    """Convolution, batch normalisation, SiLU; the output is as large as the input, divided by the stride."""

    def __init__(
        self, inputs: int, outputs: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, k, s, k // 2 if p is None else p, groups=g, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.SiLU(inplace=True) if act else nn.Identity()

    def without_normalisation(self) -> None:
        """Becomes what it is in a fused checkpoint, where the bias of the convolution does the work of both."""
        self.bn = nn.Identity()
        self.conv.bias = nn.Parameter(torch.empty(self.conv.out_channels, device=self.conv.weight.device))

    def fuse(self) -> None:
        """The same arithmetic in one convolution."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv, self.bn = fuse_conv_bn_eval(self.conv, self.bn), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.bn(self.conv(x)))


class Focus(nn.Module):  # type: ignore[misc]
    """Lays the four pixels of each 2x2 square behind each other, then convolves: the first layer before v6."""

    def __init__(self, inputs: int, outputs: int, k: int = 1) -> None:
        super().__init__()
        self.conv = Conv(4 * inputs, outputs, k)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        corners = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(corners, 1))


class Bottleneck(nn.Module):  # type: ignore[misc]
    def __init__(self, inputs: int, outputs: int, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(outputs * e)
        self.cv1 = Conv(inputs, hidden)
        self.cv2 = Conv(hidden, outputs, 3, g=g)
        self.add = shortcut and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):  # type: ignore[misc]
    """Two branches, one of them through n bottlenecks."""

    def __init__(
        self, inputs: int, outputs: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(outputs * e)
        self.cv1 = Conv(inputs, hidden)
        self.cv2 = Conv(inputs, hidden)
        self.cv3 = Conv(2 * hidden, outputs)
        self.m = self._inner(hidden, n, shortcut, g)

    def _inner(self, channels: int, n: int, shortcut: bool, g: int) -> Any:
        return nn.Sequential(*(Bottleneck(channels, channels, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class BottleneckCSP(nn.Module):  # type: ignore[misc]
    """C3's forerunner, which normalises both branches together."""

    def __init__(
        self, inputs: int, outputs: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(outputs * e)
        self.cv1 = Conv(inputs, hidden)
        self.cv2 = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, bias=False)
        self.cv4 = Conv(2 * hidden, outputs)
        self.bn = nn.BatchNorm2d(2 * hidden)
        self.act = nn.SiLU()
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(branches)))


class SPP(nn.Module):  # type: ignore[misc]
    """Spatial pyramid pooling: maxima over windows of several sizes, side by side."""

    def __init__(self, inputs: int, outputs: int, k: tuple[int, ...] = (5, 9, 13)) -> None:
        super().__init__()
        self.cv1 = Conv(inputs, inputs // 2)
        self.cv2 = Conv(inputs // 2 * (len(k) + 1), outputs)
        self.m = nn.ModuleList([nn.MaxPool2d(size, 1, size // 2) for size in k])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))


class SPPF(nn.Module):  # type: ignore[misc]
    """SPP by pooling again what was pooled."""

    def __init__(self, inputs: int, outputs: int, k: int = 5) -> None:
        super().__init__()
        self.cv1 = Conv(inputs, inputs // 2)
        self.cv2 = Conv(inputs // 2 * 4, outputs)
        self.m = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = [self.cv1(x)]
        for _ in range(3):
            pooled.append(self.m(pooled[-1]))
        return self.cv2(torch.cat(pooled, 1))


class Concat(nn.Module):  # type: ignore[misc]
    def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(x, 1)


class Detect(nn.Module):  # type: ignore[misc]
    """The convolutions of the head; `AnchorDecoder` makes boxes of what they give."""

    def __init__(self, num_outputs: int, inputs: list[int]) -> None:
        super().__init__()
        self.m = nn.ModuleList([nn.Conv2d(channels, num_outputs, 1) for channels in inputs])

    def forward(self, x: list[torch.Tensor]) -> list[torch.Tensor]:
        return [conv(level) for conv, level in zip(self.m, x, strict=True)]


class GhostConv(nn.Module):  # type: ignore[misc]
    """Half of the channels by a convolution, and from each of them another one cheaply."""

    def __init__(self, inputs: int, outputs: int, k: int = 1, s: int = 1, g: int = 1, act: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.cv1 = Conv(inputs, half, k, s, g=g, act=act)
        self.cv2 = Conv(half, half, 5, g=half, act=act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.cv1(x)
        return torch.cat((y, self.cv2(y)), 1)


class GhostBottleneck(nn.Module):  # type: ignore[misc]
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv = nn.Sequential(GhostConv(channels, half), nn.Identity(), GhostConv(half, channels, act=False))
        self.shortcut = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + self.shortcut(x)


class C3Ghost(C3):
    def _inner(self, channels: int, n: int, _shortcut: bool, _g: int) -> Any:
        return nn.Sequential(*(GhostBottleneck(channels) for _ in range(n)))


class TransformerLayer(nn.Module):  # type: ignore[misc]
    """Self-attention without normalisation."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.q = nn.Linear(channels, channels, bias=False)
        self.k = nn.Linear(channels, channels, bias=False)
        self.v = nn.Linear(channels, channels, bias=False)
        self.ma = nn.MultiheadAttention(channels, num_heads)
        self.fc1 = nn.Linear(channels, channels, bias=False)
        self.fc2 = nn.Linear(channels, channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.ma(self.q(x), self.k(x), self.v(x), need_weights=False)[0]
        return x + self.fc2(self.fc1(x))


class TransformerBlock(nn.Module):  # type: ignore[misc]
    """Every position attends to every other; a linear layer stands for their embedding."""

    def __init__(self, channels: int, num_heads: int, n: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.tr = nn.Sequential(*(TransformerLayer(channels, num_heads) for _ in range(n)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positions = x.flatten(2).permute(2, 0, 1)
        return self.tr(positions + self.linear(positions)).permute(1, 2, 0).reshape(x.shape)


class C3TR(C3):
    def _inner(self, channels: int, n: int, _shortcut: bool, _g: int) -> Any:
        return TransformerBlock(channels, 4, n)
