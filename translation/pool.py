"""Past fakes for the discriminators."""

from typing import Any

import torch
from torch import Tensor


class FakePool:
    """A history of `size` fakes (Shrivastava et al. 2017, as CycleGAN uses it).

    While it fills, each fake is stored and returned. Then each fake is, with probability one
    half, exchanged for a random stored one, else returned itself. Size 0 returns every fake.
    Draws come from a generator of the pool's own, saved with it.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.images: list[Tensor] = []
        self.random = torch.Generator().manual_seed(seed)

    def exchange(self, fakes: Tensor) -> Tensor:
        """`fakes` N x 3 x H x W, detached; returns as many, of the past or of the present."""
        if self.size == 0:
            return fakes
        chosen = []
        for fake in fakes:
            if len(self.images) < self.size:
                self.images.append(fake.clone())
                chosen.append(fake)
            elif torch.rand((), generator=self.random) < 0.5:
                index = int(torch.randint(self.size, (), generator=self.random))
                # Restored ones lie on the CPU.
                chosen.append(self.images[index].to(fake.device))
                self.images[index] = fake.clone()
            else:
                chosen.append(fake)
        return torch.stack(chosen)

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images, "random": self.random.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.images = list(state["images"])
        self.random.set_state(state["random"])
