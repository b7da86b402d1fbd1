"""Times a network of flapsam in PyTorch: what `flapsam bench` times, on the same shapes, written with PyTorch's layers.

    python pytorch.py WORK [REPEATS]        prints {"seconds": [..], "peak_memory_bytes": ..} as JSON

Works are those of `flapsam bench --work`. `compare.py` runs both in turn.
"""

import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

VIT_B = dict(side=224, dim=768, depth=12, heads=12, window=14, everywhere=(2, 5, 8, 11), prompt=256, mlp=2048, out_heads=8)
NANO = dict(side=128, dim=96, depth=4, heads=3, window=4, everywhere=(1, 3), prompt=64, mlp=128, out_heads=4)
WORKS = {
    "vit-b-step": (VIT_B, 32, 1),
    "vit-b-step4": (VIT_B, 32, 4),
    "vit-b-full-step": (VIT_B, 0, 1),
    "vit-b-forward": (VIT_B, 32, 0),
    "nano-step": (NANO, 8, 2),
}
CLASSES, STACK, PATCH = 3, 5, 16


class Lora(nn.Module):
    """A low-rank update of a projection."""

    def __init__(self, inputs, outputs, rank):
        super().__init__()
        self.lora_a = nn.Linear(inputs, rank, bias=False)
        self.lora_b = nn.Linear(rank, outputs, bias=False)

    def forward(self, x):
        return self.lora_b(self.lora_a(x))


def relative(table, side):
    place = torch.arange(side)
    return table[place[:, None] - place[None, :] + side - 1]


class WindowAttention(nn.Module):
    """Attention over a square of tokens with decomposed relative positions."""

    def __init__(self, dim, heads, side, rank):
        super().__init__()
        self.heads, self.side = heads, side
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.rows = nn.Parameter(torch.randn(2 * side - 1, dim // heads) * 0.02)
        self.columns = nn.Parameter(torch.randn(2 * side - 1, dim // heads) * 0.02)
        self.lora_q, self.lora_v = (Lora(dim, dim, rank) if rank else None for _ in range(2))

    def forward(self, x):
        batch, high, wide, dim = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.lora_q is not None:
            q, v = q + self.lora_q(x), v + self.lora_v(x)
        q, k, v = (
            part.reshape(batch, high * wide, self.heads, -1).transpose(1, 2).flatten(0, 1) for part in (q, k, v)
        )
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(1, 2)
        grid = q.reshape(-1, high, wide, q.shape[-1])
        by_row = torch.einsum("bhwc,hkc->bhwk", grid, relative(self.rows, self.side))
        by_column = torch.einsum("bhwc,wkc->bhwk", grid, relative(self.columns, self.side))
        scores = scores.view(-1, high, wide, high, wide) + by_row[..., :, None] + by_column[..., None, :]
        x = scores.flatten(1, 2).flatten(2).softmax(-1) @ v
        x = x.view(batch, self.heads, high, wide, -1).permute(0, 2, 3, 1, 4).flatten(3)
        return self.proj(x)


class Block(nn.Module):
    def __init__(self, size, index, rank):
        super().__init__()
        dim = size["dim"]
        self.window = None if index in size["everywhere"] else size["window"]
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = WindowAttention(dim, size["heads"], self.window or size["side"] // PATCH, rank)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x):
        normed, side = self.norm1(x), self.window
        if side is None:
            attended = self.attn(normed)
        else:
            batch, high, wide, dim = normed.shape
            below, right = -high % side, -wide % side
            windows = F.pad(normed, (0, 0, 0, right, 0, below))
            down, across = (high + below) // side, (wide + right) // side
            windows = windows.view(batch, down, side, across, side, dim).transpose(2, 3).flatten(0, 2)
            attended = self.attn(windows).view(batch, down, across, side, side, dim).transpose(2, 3)
            attended = attended.reshape(batch, down * side, across * side, dim)[:, :high, :wide]
        x = x + attended
        return x + self.mlp(self.norm2(x))


class ChannelNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Encoder(nn.Module):
    def __init__(self, size, rank):
        super().__init__()
        dim, grid, prompt = size["dim"], size["side"] // PATCH, size["prompt"]
        self.patches = nn.Conv2d(3, dim, PATCH, PATCH)
        self.positions = nn.Parameter(torch.randn(1, grid, grid, dim) * 0.02)
        self.blocks = nn.ModuleList(Block(size, index, rank) for index in range(size["depth"]))
        self.neck = nn.Sequential(
            nn.Conv2d(dim, prompt, 1, bias=False),
            ChannelNorm(prompt, eps=1e-6),
            nn.Conv2d(prompt, prompt, 3, padding=1, bias=False),
            ChannelNorm(prompt, eps=1e-6),
        )

    def forward(self, images):
        x = self.patches(images).permute(0, 2, 3, 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))


class Attention(nn.Module):
    def __init__(self, size, rank, downsample):
        super().__init__()
        dim, inner = size["prompt"], size["prompt"] // downsample
        self.heads = size["out_heads"]
        self.q, self.k, self.v = (nn.Linear(dim, inner) for _ in range(3))
        self.out = nn.Linear(inner, dim)
        self.lora_q, self.lora_v = (Lora(dim, inner, rank) if rank else None for _ in range(2))

    def forward(self, q, k, v):
        extra = (self.lora_q(q), self.lora_v(v)) if self.lora_q is not None else (0, 0)
        q, k, v = self.q(q) + extra[0], self.k(k), self.v(v) + extra[1]
        q, k, v = (x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2) for x in (q, k, v))
        x = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1) @ v
        return self.out(x.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, size, rank, first):
        super().__init__()
        dim = size["prompt"]
        self.first = first
        self.own, self.to_image, self.to_tokens = (Attention(size, rank, by) for by in (1, 2, 2))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(dim, size["mlp"]), nn.ReLU(), nn.Linear(size["mlp"], dim))

    def forward(self, queries, keys, tokens, places):
        if self.first:
            queries = self.own(queries, queries, queries)
        else:
            q = queries + tokens
            queries = queries + self.own(q, q, queries)
        queries = self.norms[0](queries)
        queries = self.norms[1](queries + self.to_image(queries + tokens, keys + places, keys))
        queries = self.norms[2](queries + self.mlp(queries))
        keys = self.norms[3](keys + self.to_tokens(keys + places, queries + tokens, queries))
        return queries, keys


class Decoder(nn.Module):
    def __init__(self, size, rank):
        super().__init__()
        dim = size["prompt"]
        self.layers = nn.ModuleList(Layer(size, rank, first) for first in (True, False))
        self.last, self.norm = Attention(size, rank, 2), nn.LayerNorm(dim)
        self.head_tokens, self.iou_token = nn.Parameter(torch.randn(CLASSES, dim)), nn.Parameter(torch.randn(1, dim))
        widths = [dim, dim // 4, dim // 8, dim // 16, dim // 32]
        stages = []
        for number, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
            stages.append(nn.ConvTranspose2d(inputs, outputs, 2, 2))
            if number < 3:
                stages.append(ChannelNorm(outputs, eps=1e-6))
            stages.append(nn.GELU())
        self.head_upscaling = nn.Sequential(*stages)
        mlp = lambda: nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, widths[-1])
        )
        self.head_hypernetworks = nn.ModuleList(mlp() for _ in range(CLASSES))

    def forward(self, image, places):
        batch, dim, high, wide = image.shape
        tokens = torch.cat([self.iou_token, self.head_tokens]).expand(batch, -1, -1)
        queries, keys, places = tokens, image.flatten(2).transpose(1, 2), places.flatten(2).transpose(1, 2)
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, places)
        queries = self.norm(queries + self.last(queries + tokens, keys + places, keys))
        pixels = self.head_upscaling(keys.transpose(1, 2).reshape(batch, dim, high, wide))
        weights = [mlp(queries[:, 1 + index]) for index, mlp in enumerate(self.head_hypernetworks)]
        return (torch.stack(weights, 1) @ pixels.flatten(2)).view(batch, CLASSES, *pixels.shape[2:])


class Sam(nn.Module):
    def __init__(self, size, rank):
        super().__init__()
        self.encoder, self.decoder = Encoder(size, rank), Decoder(size, rank)
        grid = size["side"] // PATCH
        self.register_buffer("places", torch.randn(1, size["prompt"], grid, grid))
        self.no_mask = nn.Parameter(torch.randn(size["prompt"]))

    def forward(self, images):
        return self.decoder(self.encoder(images) + self.no_mask[:, None, None], self.places)


def loss_of(logits, labels):
    probabilities = logits.softmax(1)
    one_hot = F.one_hot(labels, CLASSES).permute(0, 3, 1, 2).to(probabilities.dtype)
    sums = lambda x: x.sum(dim=(0, 2, 3))
    overlap, sizes = sums(probabilities * one_hot), sums(probabilities**2) + sums(one_hot)
    dice = 1 - ((2 * overlap + 1e-5) / (sizes + 1e-5)).mean()
    return 0.2 * F.cross_entropy(logits, labels) + 0.8 * dice


def main(work, repeats):
    size, rank, stacks = WORKS[work]
    torch.manual_seed(0)
    network = Sam(size, rank)
    for name, parameter in network.named_parameters():
        # FLAP-SAM trains LoRA and the decoder's heads, full fine-tuning everything.
        parameter.requires_grad_(rank == 0 or "lora_" in name or "head_" in name)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.1)
    slices = max(stacks * STACK, 1)
    images = torch.rand(slices, 1, size["side"], size["side"]).expand(-1, 3, -1, -1)
    labels = torch.randint(0, CLASSES, (slices, size["side"], size["side"]))

    def once():
        start = time.perf_counter()
        if stacks:
            loss = loss_of(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        else:
            with torch.no_grad():
                network(images)
        return time.perf_counter() - start

    once()
    seconds = [once() for _ in range(repeats)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_memory_bytes": peak, "torch": torch.__version__}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5)
