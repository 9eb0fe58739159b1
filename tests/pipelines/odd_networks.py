"""Networks with the habits that real ones have."""

import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        layers = nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(6, 3)

    def forward(self, images):
        return self.head(self.body(images))


class Aux(Plain):
    def __init__(self):
        super().__init__()
        self.aux = nn.Linear(6, 3)

    def forward(self, images):
        print("forward is chatty")
        features = self.body(images)
        return (self.head(features), self.aux(features)) if self.training else self.head(features)


class Unused(Plain):
    def __init__(self):
        super().__init__()
        self.other_head = nn.Linear(6, 4)


class Fragile(Plain):
    def forward(self, images):
        return torch.where(images[:, :1, 0, 0] > 0.9, torch.nan, super().forward(images))


class Tied(Plain):
    def __init__(self):
        super().__init__()
        self.same_head = self.head

    def forward(self, images):
        return self.same_head(self.body(images))
