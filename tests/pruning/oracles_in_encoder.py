"""Independent NumPy oracles of the methods that prune inside the encoder: a whole CLIP tower in float64 from
transformers' weights, pruned by the papers' maths, loop by loop and pair by pair.

Each returns keep_idx and the projected tokens (K,D) of one picture.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Array = np.ndarray
#: two values closer than this, relative to their size, may fall otherwise in float32
TIE = 2e-5


class Tie(Exception):
    """Rounding decides what this input keeps."""


def require_apart(high: float, low: float) -> None:
    if high - low <= TIE * max(abs(high), abs(low)):
        raise Tie


class Tower:
    """Layers and projector of a LLaVA with a CLIP tower, as a state dict of transformers holds them."""

    def __init__(self, state: Mapping[str, Array], blocks: int, heads: int, eps: float) -> None:
        self.state = {name: np.asarray(value, np.float64) for name, value in state.items()}
        self.blocks, self.heads, self.eps = blocks, heads, eps

    def find(self, ending: str) -> Array:
        names = [name for name in self.state if name.endswith(ending)]
        assert len(names) == 1, (ending, names)
        return self.state[names[0]]

    def linear(self, name: str, x: Array) -> Array:
        return x @ self.find(f"{name}.weight").T + self.find(f"{name}.bias")

    def norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.eps)
        return scaled * self.find(f"{name}.weight") + self.find(f"{name}.bias")

    def project(self, x: Array) -> Array:
        from scipy.special import erf

        z = self.linear("multi_modal_projector.linear_1", x)
        return self.linear("multi_modal_projector.linear_2", z * 0.5 * (1 + erf(z / np.sqrt(2))))

    def qkv(self, block: int, x: Array) -> list[Array]:
        """Three of (H,S,d)."""
        normed = self.norm(f"layers.{block}.layer_norm1", x)
        made = [self.linear(f"vision_tower.encoder.layers.{block}.self_attn.{n}_proj", normed) for n in "qkv"]
        return [m.reshape(len(x), self.heads, -1).transpose(1, 0, 2) for m in made]

    def attention(self, q: Array, k: Array, bias: Array) -> Array:
        """(H,S,S); `bias` (S,) is added to the logits of every row."""
        return softmax(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[2]) + bias)

    def attended(self, block: int, x: Array, weights: Array, v: Array) -> Array:
        mixed = (weights @ v).transpose(1, 0, 2).reshape(len(x), -1)
        return x + self.linear(f"layers.{block}.self_attn.out_proj", mixed)

    def fed(self, block: int, x: Array) -> Array:
        z = self.linear(f"layers.{block}.mlp.fc1", self.norm(f"layers.{block}.layer_norm2", x))
        return x + self.linear(f"layers.{block}.mlp.fc2", z / (1 + np.exp(-1.702 * z)))


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def tome(tower: Tower, x: Array, counts: list[int]) -> tuple[list[int], Array]:
    """x (S,C): input of the first block, [CLS] first. Tokens are kept as lists of the patches they stand for."""
    members: list[list[int]] = [[-1], *([patch] for patch in range(len(x) - 1))]
    began = list(range(-1, len(x) - 1))
    for block, count in enumerate(counts):
        q, k, v = tower.qkv(block, x)
        sizes = np.array([len(group) for group in members], np.float64)
        x = tower.attended(block, x, tower.attention(q, k, np.log(sizes)), v)
        pairs = most_alike(k.mean(0), len(x) - 1 - count)
        joined: dict[int, list[int]] = {}
        for source, target in pairs:
            joined.setdefault(target, []).append(source)
        gone = {source for source, _ in pairs}
        places = [p for p in range(0, len(x), 2) if p not in gone] + list(range(1, len(x), 2))
        groups = [[p, *joined.get(p, [])] for p in places]
        x = np.array([np.average(x[group], axis=0, weights=sizes[group]) for group in groups])
        members = [[patch for p in group for patch in members[p]] for group in groups]
        began = [began[p] for p in places]
        x = tower.fed(block, x)
    order = sorted(range(1, len(x)), key=lambda row: began[row])
    return [began[row] if len(members[row]) == 1 else -1 for row in order], tower.project(x[order])


def most_alike(keys: Array, wanted: int) -> list[tuple[int, int]]:
    """The `wanted` best (even row, odd row) pairs, each even row with its best odd one; row 0 takes no part."""
    if wanted == 0:
        return []
    unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    found = []
    for row in range(2, len(keys), 2):
        near = unit[1::2] @ unit[row]
        ranked = np.argsort(-near)
        second = near[ranked[1]] if len(ranked) > 1 else -2.0
        found.append((near[ranked[0]], row, 1 + 2 * int(ranked[0]), second))
    found.sort(reverse=True)
    if wanted < len(found):
        require_apart(found[wanted - 1][0], found[wanted][0])
    for best, _, _, second in found[:wanted]:
        require_apart(best, second)
    return [(row, target) for _, row, target, _ in found[:wanted]]


def flowcut(tower: Tower, x: Array, counts: list[int]) -> tuple[list[int], Array]:
    """As `flowcut_of` with given counts."""
    index, embeds, _ = flowcut_of(tower, x, counts[-1], counts)
    return index, embeds


def flowcut_of(tower: Tower, x: Array, k: int, counts: list[int] | None) -> tuple[list[int], Array, list[int]]:
    """Masked emulation: no row is ever removed, dropped ones are hidden from every later softmax. Without counts, the
    paper's rule reads them from the entropy of the attention. Third result: visual tokens behind each block."""
    alive = np.ones(len(x), bool)
    total: Array | None = None
    behind: list[int] = []
    for block in range(tower.blocks):
        hidden = np.where(alive, 0.0, -np.inf)
        q, keys, v = tower.qkv(block, x)
        weights = tower.attention(q, keys, hidden)
        x = tower.fed(block, tower.attended(block, x, weights, v))
        patches, left = np.flatnonzero(alive[1:]) + 1, tower.blocks - 2 - block
        if len(patches) > k:
            a = weights[:, 0].mean(0)[patches]
            s = np.mean([softmax(head @ head[0] + hidden) for head in v], axis=0)[patches]
            score = np.zeros(len(x))
            score[patches] = (a / a.sum() + s / s.sum()) * np.abs(v.mean(0)[patches]).sum(1)
            total = score if total is None else 0.5 * total + 0.5 * score
            if counts is not None:
                count = counts[block]
            else:
                count = entropy_count(a / a.sum(), k, left) if left >= 0 and left % 2 == 0 else len(patches)
            ranked = patches[np.argsort(-total[patches])]
            if count < len(patches):
                require_apart(float(total[ranked[count - 1]]), float(total[ranked[count]]))
            alive[ranked[count:]] = False
        behind.append(int(alive[1:].sum()))
    kept = np.flatnonzero(alive[1:])
    return kept.tolist(), tower.project(x[kept + 1]), behind


def entropy_count(share: Array, k: int, left: int) -> int:
    """Patches the paper's rule leaves of those that `share` (n,), summing to one, belongs to."""
    n = len(share)
    if left == 0:
        return k
    evenness = -(share * np.log(share)).sum() / np.log(n)
    return max(n - round((n - k) / np.sqrt(left) * (1 - evenness**2)), k)
