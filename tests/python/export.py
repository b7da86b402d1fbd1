"""Exported networks against the reference's names and shapes, and merged weights computed again with numpy.

    export.py FIXTURES BASE=FLAP_SAM=MERGED..

FIXTURES are case folders of reference outputs, joined by commas. Each further argument names a base checkpoint and
what was exported with it. Prints one JSON line each: the number of tensors, the largest difference of a merged
weight from the recomputed one as a share of the tensor's largest value, and how far merging moved any.
"""

import json
import sys

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file


def reference_layout(sam, num_classes, rank, num_lora, dora):
    """Every name and shape of the reference's adapted network."""
    dim, out, hidden = sam["embed_dim"], sam["prompt_dim"], sam["decoder_mlp_dim"]
    patch, head = sam["patch_size"], sam["embed_dim"] // sam["num_heads"]
    grid = sam["image_size"] // patch
    shapes = {}

    def layer(name, *weight, bias=None):
        shapes[f"{name}.weight"] = list(weight)
        shapes[f"{name}.bias"] = [weight[0] if bias is None else bias]

    def lora(name, inputs, outputs):
        if rank == 0:
            return
        if num_lora > 1:
            shapes[f"{name}.lora_scale"] = [num_lora]
        for letter in "qv":
            for pair in range(num_lora):
                shapes[f"{name}.lora_w_a_{letter}.{pair}.weight"] = [rank, inputs]
                shapes[f"{name}.lora_w_b_{letter}.{pair}.weight"] = [outputs, rank]
            if dora:
                shapes[f"{name}.dora_m_{letter}"] = [1, inputs]

    shapes["image_encoder.pos_embed"] = [1, grid, grid, dim]
    layer("image_encoder.patch_embed.proj", dim, 3, patch, patch)
    for index in range(sam["depth"]):
        block = f"image_encoder.blocks.{index}"
        side = grid if index in sam["global_attn_indexes"] else sam["window_size"]
        for norm in ("norm1", "norm2"):
            layer(f"{block}.{norm}", dim)
        layer(f"{block}.attn.qkv", 3 * dim, dim)
        layer(f"{block}.attn.proj", dim, dim)
        for axis in "hw":
            shapes[f"{block}.attn.rel_pos_{axis}"] = [2 * side - 1, head]
        lora(f"{block}.attn", dim, dim)
        layer(f"{block}.mlp.lin1", 4 * dim, dim)
        layer(f"{block}.mlp.lin2", dim, 4 * dim)
    shapes["image_encoder.neck.0.weight"] = [out, dim, 1, 1]
    layer("image_encoder.neck.1", out)
    shapes["image_encoder.neck.2.weight"] = [out, out, 3, 3]
    layer("image_encoder.neck.3", out)

    shapes["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = [2, out // 2]
    for name in [f"point_embeddings.{index}" for index in range(4)] + ["not_a_point_embed", "no_mask_embed"]:
        shapes[f"prompt_encoder.{name}.weight"] = [1, out]
    layer("prompt_encoder.mask_downscaling.0", 4, 1, 2, 2)
    layer("prompt_encoder.mask_downscaling.1", 4)
    layer("prompt_encoder.mask_downscaling.3", 16, 4, 2, 2)
    layer("prompt_encoder.mask_downscaling.4", 16)
    layer("prompt_encoder.mask_downscaling.6", out, 16, 1, 1)

    def attention(name, inner):
        for letter in "qkv":
            layer(f"{name}.{letter}_proj", inner, out)
        layer(f"{name}.out_proj", out, inner)
        lora(name, out, inner)

    decoder = "mask_decoder"
    for index in range(2):
        part = f"{decoder}.transformer.layers.{index}"
        attention(f"{part}.self_attn", out)
        attention(f"{part}.cross_attn_token_to_image", out // 2)
        attention(f"{part}.cross_attn_image_to_token", out // 2)
        for norm in range(1, 5):
            layer(f"{part}.norm{norm}", out)
        layer(f"{part}.mlp.lin1", hidden, out)
        layer(f"{part}.mlp.lin2", out, hidden)
    attention(f"{decoder}.transformer.final_attn_token_to_image", out // 2)
    layer(f"{decoder}.transformer.norm_final_attn", out)
    masks = num_classes + 1
    shapes[f"{decoder}.iou_token.weight"] = [1, out]
    shapes[f"{decoder}.mask_tokens.weight"] = [masks, out]
    width = out
    for index, factor in zip((0, 3, 6, 9), (4, 8, 16, 32)):
        # A transposed convolution: its inputs come first.
        layer(f"{decoder}.output_upscaling.{index}", width, out // factor, 2, 2, bias=out // factor)
        width = out // factor
        if index < 9:
            layer(f"{decoder}.output_upscaling.{index + 1}", width)
    heads = [(f"output_hypernetworks_mlps.{mask}", (out, out, width)) for mask in range(masks)]
    heads.append(("iou_prediction_head", (out, out, masks)))
    for name, widths in heads:
        inputs = out
        for index, outputs in enumerate(widths):
            layer(f"{decoder}.{name}.layers.{index}", outputs, inputs)
            inputs = outputs
    return shapes


def shapes_of(path):
    with safe_open(path, "numpy") as file:
        return {key: file.get_slice(key).get_shape() for key in file.keys()}


def same(got, want, where):
    names = sorted(got.keys() ^ want.keys())
    assert not names, f"{where}: on one side only: {names}"
    other = [f"{key} is {got[key]}, not {want[key]}" for key in want if got[key] != want[key]]
    assert not other, f"{where}: {other}"


def merged_weights(state, adapter):
    """Every weight that LoRA changes, computed in double precision."""
    merged = {}
    for name in {key.split(".lora_w_")[0] for key in state if ".lora_w_" in key}:
        for letter in "qv":
            fused = f"{name}.qkv.weight"
            key = fused if fused in state else f"{name}.{letter}_proj.weight"
            whole = merged.get(key, state[key].astype(float))
            third = len(whole) // 3
            rows = {"q": slice(0, third), "v": slice(2 * third, None)}[letter] if key == fused else slice(None)
            mixing = np.ones(1)
            if adapter["num_lora"] > 1:
                powers = np.exp(1 / (1 + np.exp(-state[f"{name}.lora_scale"].astype(float))))
                mixing = powers / powers.sum()
            weight = whole[rows]
            for pair, share in enumerate(mixing):
                a, b = (state[f"{name}.lora_w_{which}_{letter}.{pair}.weight"].astype(float) for which in "ab")
                weight = weight + adapter["lora_scale"] * share * (b @ a)
            if adapter["dora"]:
                weight = state[f"{name}.dora_m_{letter}"] * weight / np.linalg.norm(weight, axis=0, keepdims=True)
            whole[rows] = weight
            merged[key] = whole
    return merged


def about(path, format):
    with safe_open(path, "numpy") as file:
        note = json.loads(file.metadata()["flapsam_export"])
    assert note["format"] == format, note
    return note["adapter"]


fixtures, *exports = sys.argv[1:]
for case in fixtures.split(","):
    meta = json.load(open(f"{case}/meta.json"))
    sam = meta["config"] | {"image_size": meta["train_image_size"]}
    want = reference_layout(sam, *(meta[key] for key in ("num_classes", "rank", "num_lora", "dora")))
    same(shapes_of(f"{case}/flap.safetensors"), want, case)
for export in exports:
    base, flap_sam, merged = export.split("=")
    note = about(flap_sam, "flap-sam")
    adapter = note["adapter"]
    assert about(merged, "merged") == note
    layout = [adapter[key] for key in ("num_classes", "rank", "num_lora", "dora")]
    same(shapes_of(flap_sam), reference_layout(note["sam"], *layout), flap_sam)
    same(shapes_of(merged), reference_layout(note["sam"], layout[0], 0, 1, False), merged)
    state, got = load_file(flap_sam), load_file(merged)
    want = merged_weights(state, adapter)
    assert len(want) == note["sam"]["depth"] + 2 * 7, "every encoder block, and q and v of seven attentions"
    for key in got.keys() - want.keys():
        assert np.array_equal(got[key], state[key]), f"{key} changed"
    frozen = load_file(base)
    for key in got.keys() & frozen.keys():
        if key.startswith("image_encoder.") and key not in want and frozen[key].shape == got[key].shape:
            assert np.array_equal(got[key], frozen[key].astype(np.float32)), f"{key} is not the base's"
    furthest = max(np.abs(got[key] - want[key]).max() / np.abs(want[key]).max() for key in want)
    moved = max(np.abs(got[key] - state[key]).max() for key in want)
    print(json.dumps({"tensors": len(state), "furthest": float(furthest), "moved": float(moved)}), flush=True)
