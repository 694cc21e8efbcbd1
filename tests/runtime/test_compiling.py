"""runtime/compiling.py: which parts of a network are compiled, and when their code is used."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from bdl.runtime.compiling import compile_blocks, require_compiler, uncompiled
from bdl.runtime.errors import UserError


def test_a_machine_that_cannot_compile_is_told_in_one_line(monkeypatch):
    """The true error of a machine without a C++ compiler, in the words of a setting."""
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    with pytest.raises(UserError, match=r"compile: .*no-such-compiler.*; install a C") as error:
        require_compiler(torch.device("cpu"))
    assert "\n" not in str(error.value)


class Block(nn.Module):
    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.body(maps)


class Stage(nn.Module):
    """Several blocks, itself one of several in a network."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block() for _ in range(blocks)))
        self.narrow = nn.Conv2d(4, 4, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.narrow(self.blocks(maps))


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CompileCounter:
    """Counts what is compiled, which is only traced."""
    torch._dynamo.reset()
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    return counter


def test_the_innermost_blocks_are_compiled_and_equal_ones_share_their_code(counter):
    """Not stages, of which each has another number of blocks, nor single convolutions."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), Stage(2), Stage(3))
    images = torch.rand(1, 3, 8, 8)
    expected = network(images)
    compile_blocks(network)
    compiled = {type(part) for part in network.modules() if part._compiled_call_impl is not None}
    assert compiled == {Block}
    torch.testing.assert_close(network(images), expected)
    assert counter.frame_count == 1


def test_blocks_of_many_kinds_are_compiled(counter):
    """Of more channels than torch compiles a function for by itself."""
    blocks = [Block(channels) for channels in range(1, 13)]
    compile_blocks(nn.ModuleList(blocks))
    for channels, block in enumerate(blocks, start=1):
        block(torch.rand(1, channels, 4, 4))
    assert counter.frame_count == 12


def test_what_is_only_looked_at_is_not_compiled(counter):
    network = nn.Sequential(Block(), Block())
    compile_blocks(network)
    images = torch.rand(1, 4, 8, 8)
    with uncompiled(True):
        expected = network(images)
    assert counter.frame_count == 0
    with uncompiled(False):
        torch.testing.assert_close(network(images), expected)
    before = counter.frame_count
    assert before > 0
    with uncompiled(True):
        network(torch.rand(1, 4, 9, 7))
    assert counter.frame_count == before
