"""Which passes move the running averages of batch norm."""

from __future__ import annotations

import torch
from torch import nn

from gcl_fast.stages.running_stats import kept_running_stats


def test_kept_running_stats(device):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(16)).to(device).train()
    image = torch.randn(5, 3, 2, 2, device=device)
    before = {k: v.clone() for k, v in net.state_dict().items() if "running" in k}
    with kept_running_stats(net):
        inside = net(image)
    after = net.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    outside = net(image)  # the same batch statistics are used, and now the averages move
    assert torch.equal(inside, outside)
    assert not any(torch.equal(net.state_dict()[k], v) for k, v in before.items())
