"""MTCNN's three networks, with the weights of facenet-pytorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from facedan_cli.alignment.mtcnn_pooling import MaxPool


@dataclass(frozen=True)
class Networks:
    """P-, R- and O-Net on a device."""

    pnet: nn.Module
    rnet: nn.Module
    onet: nn.Module
    device: torch.device


def load_networks(device: torch.device) -> Networks:
    """The networks with the weights in facenet-pytorch's wheel."""
    # With torchvision it takes longer to import than all the rest.
    from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

    # Pooling and convolving few channels is twice to three times as fast with the channels last.
    pnet, rnet, onet = (net().eval().to(device).to(memory_format=torch.channels_last) for net in (PNet, RNet, ONet))
    if device.type == "cpu":
        for net in (pnet, rnet, onet):
            pools = [(name, child) for name, child in net.named_children() if isinstance(child, nn.MaxPool2d)]
            for name, pool in pools:
                setattr(net, name, MaxPool(pool.kernel_size))  # type: ignore[arg-type]  # their windows are square
    return Networks(pnet, rnet, onet, device)
