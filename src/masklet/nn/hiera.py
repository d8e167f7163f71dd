"""Hiera (Ryali et al. 2023), the trunk of SAM 2's image encoder, over transformers' modules.

Tokens lie in the order of the windows that look at each other, so that a window's tokens are a slice: blocks with the
same windows move nothing about. Where windows do not fit the map, the published network fills them up with tokens of
zeros. All of a window's are alike, so they count here as one key, as often as they are there: the same answer, without
computing anything for tokens that are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as nnf
from jaxtyping import Float, Int64
from torch import Tensor

from masklet.nn.quick_linear import apply_linear

AT_ONCE = 4096  # tokens


@dataclass(frozen=True)
class WindowGroup:
    """Windows of one shape, which follow each other."""

    count: int
    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        """Of all its windows."""
        return self.count * self.rows * self.columns


@dataclass(frozen=True)
class WindowOrder:
    """In what order the tokens of a map of `grid` x `grid` cells lie: window by window, each of `window` cells."""

    grid: int
    window: int

    @property
    def groups(self) -> tuple[WindowGroup, ...]:
        """Whole windows, those that the right border cuts, those that the lower one cuts, the corner.

        >>> [(g.count, g.rows, g.columns) for g in WindowOrder(32, 14).groups]
        [(4, 14, 14), (2, 14, 4), (2, 4, 14), (1, 4, 4)]
        """
        whole, rest = divmod(self.grid, self.window)
        shapes = [(whole * whole, self.window, self.window), (whole, self.window, rest), (whole, rest, self.window)]
        return tuple(WindowGroup(*shape) for shape in [*shapes, (1, rest, rest)] if all(shape))

    def list_cells(self) -> Int64[Tensor, " t"]:
        """The number of each token's cell in the map, row by row."""
        cells, edge = torch.arange(self.grid**2).view(self.grid, self.grid), self.grid // self.window * self.window
        parts = (cells[:edge, :edge], cells[:edge, edge:], cells[edge:, :edge], cells[edge:, edge:])
        return torch.cat([self._list_part(part) for part in parts if part.numel()])

    def _list_part(self, cells: Int64[Tensor, "h w"]) -> Int64[Tensor, " t"]:
        """The cells of a part of the map that windows of one shape divide."""
        rows, columns = (min(self.window, n) for n in cells.shape)
        windows = cells.view(cells.shape[0] // rows, rows, cells.shape[1] // columns, columns)
        return windows.transpose(1, 2).flatten()

    def halve(self) -> WindowOrder:
        """The order of what is left when every 2 x 2 cells become one: it is that of windows of half the size."""
        return WindowOrder(self.grid // 2, self.window // 2)


@dataclass(frozen=True, eq=False)
class HieraStep:
    """One block, and how tokens lie in it."""

    block: Any  # transformers' `Sam2MultiScaleBlock`
    order: WindowOrder
    moves: Int64[Tensor, " t"] | None  # which token of the block before each is; None: they stay where they are
    map: Int64[Tensor, " cells"] | None  # after the last block of a stage: which token each cell of the map is


class Hiera:
    """Runs the blocks of `net`, a `Sam2HieraDetModel`, over images of `side` x `side` pixels."""

    def __init__(self, net: Any, side: int) -> None:
        self.net = net
        with torch.no_grad():
            self.position = net._get_pos_embed((side // 4, side // 4)).flatten(1, 2)
        self.steps = plan_steps(net, side // 4, self.position.device)

    def __call__(self, pixels: Float[Tensor, "b 3 s s"]) -> list[Float[Tensor, "b hw c"]]:
        """The tokens after each stage, the finest map first, row by row."""
        x, maps = self.net.patch_embed(pixels).flatten(1, 2) + self.position, []
        for step in self.steps:
            x = run_block_by_parts(step.block, x if step.moves is None else x[:, step.moves], step.order)
            if step.map is not None:
                maps.append(x[:, step.map])
        return maps


def plan_steps(net: Any, grid: int, device: torch.device) -> tuple[HieraStep, ...]:
    """The blocks of `net` over a map of `grid` x `grid` tokens, with what has to be moved between them."""
    steps, lies = list[HieraStep](), WindowOrder(grid, grid)  # row by row
    for number, block in enumerate(net.blocks):
        order = WindowOrder(lies.grid, block.window_size) if block.window_size else lies  # no window: all, as they lie
        moves = None if order == lies else invert(lies.list_cells())[order.list_cells()].to(device)
        lies = order.halve() if block.query_stride else order
        ends = number in net.stage_ends
        steps.append(HieraStep(block, order, moves, invert(lies.list_cells()).to(device) if ends else None))
    return tuple(steps)


def invert(order: Int64[Tensor, " t"]) -> Int64[Tensor, " t"]:
    """Where each number stands in `order`, a permutation."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))


def run_block_by_parts(block: Any, x: Float[Tensor, "b t c"], order: WindowOrder) -> Float[Tensor, "b t2 d"]:
    """A block's answer, its tokens in the same order; a quarter of them where it pools. On a CPU some windows at a time
    where all are whole: what is made of them in between stays in the caches, and needs a fraction of the memory.
    """
    first, *others = order.groups
    size = first.rows * first.columns
    if others or not block.window_size or x.device.type != "cpu" or x.shape[1] <= AT_ONCE:
        return run_block(block, x, order.groups)
    parts = torch.split(x, max(AT_ONCE // size, 1) * size, 1)
    return join_tokens([run_block(block, x, (replace(first, count=x.shape[1] // size),)) for x in parts])


def run_block(block: Any, x: Float[Tensor, "b t c"], groups: Sequence[WindowGroup]) -> Float[Tensor, "b t2 d"]:
    """A block's answer for the tokens of these windows."""
    seen = block.layer_norm1(x)
    if block.dim != block.dim_out:
        x = apply_linear(block.proj, seen)
        x = pool_windows(x, groups) if block.query_stride else x
    x = x + apply_linear(block.attn.proj, attend_within_windows(block, seen, groups))
    return x + apply_mlp(block.mlp, block.layer_norm2(x))


def apply_mlp(mlp: Any, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b t c"]:
    """The two linear layers of a block, with a GELU between them."""
    return apply_linear(mlp.proj_out, apply_linear(mlp.proj_in, x, "gelu"))


def pool_windows(x: Float[Tensor, "b t c"], groups: Sequence[WindowGroup]) -> Float[Tensor, "b q c"]:
    """The greatest of every 2 x 2 tokens, channel by channel."""
    pooled = []
    for group, part in zip(groups, torch.split(x, [group.tokens for group in groups], 1), strict=True):
        cells = part.reshape(len(x), group.count, group.rows // 2, 2, group.columns // 2, 2, -1)
        rows = torch.maximum(cells[:, :, :, 0], cells[:, :, :, 1])
        pooled.append(torch.maximum(rows[:, :, :, :, 0], rows[:, :, :, :, 1]).flatten(1, 3))
    return join_tokens(pooled)


def attend_within_windows(
    block: Any, seen: Float[Tensor, "b t c"], groups: Sequence[WindowGroup]
) -> Float[Tensor, "b q d"]:
    """What each token attends to in its window; in a block that pools, the pooled queries do."""
    part = block.attn
    groups = groups if block.window_size else (WindowGroup(1, 1, seen.shape[1]),)
    wide = part.qkv.out_features // 3
    qkv = apply_linear(part.qkv, seen)
    queries = pool_windows(qkv[..., :wide], groups) if block.query_stride else qkv[..., :wide]
    shares = 4 if block.query_stride else 1
    parts = zip(
        groups,
        torch.split(queries, [group.tokens // shares for group in groups], 1),
        torch.split(qkv[..., wide:], [group.tokens for group in groups], 1),
        strict=True,
    )
    return join_tokens([attend_in_group(block, group, q, kv) for group, q, kv in parts])


def attend_in_group(
    block: Any, group: WindowGroup, q: Float[Tensor, "b q d"], kv: Float[Tensor, "b t d2"]
) -> Float[Tensor, "b q d"]:
    """What the queries of windows of one shape attend to; where the windows are cut, to the filling, too."""
    part, batch = block.attn, len(q)
    heads, windows = part.num_attention_heads, batch * group.count
    q = q.reshape(windows, -1, heads, q.shape[2] // heads).transpose(1, 2)
    k, v = kv.reshape(windows, -1, 2, heads, q.shape[3]).unbind(2)
    filling = block.window_size**2 - group.rows * group.columns if block.window_size else 0
    bias = None
    if filling:
        k, v = (
            torch.cat([x, fill.to(x.dtype).view(1, 1, heads, -1).expand(windows, -1, -1, -1)], 1)
            for x, fill in zip((k, v), part.qkv.bias.chunk(3)[1:], strict=True)
        )
        bias = torch.zeros(1, 1, 1, k.shape[1], dtype=q.dtype, device=q.device)
        bias[..., -1] = math.log(filling)  # as many equal keys
    found = nnf.scaled_dot_product_attention(q, k.transpose(1, 2), v.transpose(1, 2), bias)
    return found.transpose(1, 2).reshape(batch, -1, heads * q.shape[3])


def join_tokens(parts: Sequence[Float[Tensor, "b _ c"]]) -> Float[Tensor, "b t c"]:
    """The tokens of all parts."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)
