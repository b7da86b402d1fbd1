"""The adapted network as ONNX, from what `flapsam export --format merged` wrote.

    export_onnx.py MERGED.safetensors BATCH NETWORK.onnx

The graph takes BATCH slices in [0, 1], `slices` of [batch, 1, side, side], and returns `probabilities` of
[batch, class, side, side]. It is written operator by operator, without PyTorch: layers become ONNX's own operators
where it has them, and what depends on weights alone (relative positions by row and by column, the positional grid) is
a constant. The predicted scores, which segmentation does not use, are left out.
"""

import json
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open

OPSET = 20  # The first with GELU.


class Graph:
    """A graph in the making. `graph.Operator(inputs.., attribute=..)` adds a node and returns its output's name."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def __getattr__(self, operator):
        def add(*inputs, **attributes):
            output = f"{operator}_{len(self.nodes)}"
            names = [name if isinstance(name, str) else self.constant(name) for name in inputs]
            self.nodes.append(helper.make_node(operator, names, [output], **attributes))
            return output

        return add

    def constant(self, values):
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def reshape(self, x, *shape):
        return self.Reshape(x, np.array(shape, np.int64))

    def permute(self, x, *axes):
        return self.Transpose(x, perm=axes)

    def model(self, output, inputs, outputs):
        self.nodes.append(helper.make_node("Identity", [output], list(outputs)))
        infos = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
            for side in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, "flapsam", *infos, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


class Network:
    def __init__(self, state, config, batch):
        self.state, self.config, self.batch, self.graph = state, config, batch, Graph()
        self.grid = config["image_size"] // config["patch_size"]

    def linear(self, x, name):
        y = self.graph.MatMul(x, self.state[f"{name}.weight"].T)
        return self.graph.Add(y, self.state[f"{name}.bias"])

    def norm(self, x, name, epsilon):
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return self.graph.LayerNormalization(x, weight, bias, axis=-1, epsilon=epsilon)

    def probabilities(self, slices):
        logits = self.decoder(self.encoder(slices))
        return self.graph.Softmax(logits, axis=1)

    def encoder(self, slices):
        """[batch, 1, side, side] to [batch, row, column, prompt channel]."""
        graph, state, config = self.graph, self.state, self.config
        batch, grid, patch, dim = self.batch, self.grid, config["patch_size"], config["embed_dim"]
        side, name = grid * patch, "image_encoder"
        x = graph.Expand(slices, np.array([batch, 3, side, side], np.int64))
        x = graph.permute(graph.reshape(x, batch, 3, grid, patch, grid, patch), 0, 2, 4, 1, 3, 5)
        x = graph.reshape(x, batch, grid, grid, 3 * patch * patch)
        weight = state[f"{name}.patch_embed.proj.weight"].reshape(dim, -1)
        x = graph.MatMul(x, weight.T)
        x = graph.Add(x, state[f"{name}.patch_embed.proj.bias"] + state[f"{name}.pos_embed"])
        for index in range(config["depth"]):
            windowed = index not in config["global_attn_indexes"]
            x = self.block(x, f"{name}.blocks.{index}", config["window_size"] if windowed else grid)
        x = graph.MatMul(x, state[f"{name}.neck.0.weight"][:, :, 0, 0].T)
        x = graph.permute(self.norm(x, f"{name}.neck.1", 1e-6), 0, 3, 1, 2)
        x = graph.Conv(x, state[f"{name}.neck.2.weight"], pads=[1, 1, 1, 1])
        return self.norm(graph.permute(x, 0, 2, 3, 1), f"{name}.neck.3", 1e-6)

    def block(self, x, name, window):
        graph, batch, grid, dim = self.graph, self.batch, self.grid, self.config["embed_dim"]
        across = -(-grid // window)
        padded = across * window
        y = self.norm(x, f"{name}.norm1", 1e-6)
        if padded > grid:
            y = graph.Pad(y, np.array([0, 0, 0, 0, 0, padded - grid, padded - grid, 0], np.int64))
        if across > 1:
            y = graph.permute(graph.reshape(y, batch, across, window, across, window, dim), 0, 1, 3, 2, 4, 5)
        y = self.encoder_attention(y, f"{name}.attn", batch * across**2, window)
        if across > 1:
            y = graph.permute(graph.reshape(y, batch, across, across, window, window, dim), 0, 1, 3, 2, 4, 5)
        y = graph.reshape(y, batch, padded, padded, dim)
        if padded > grid:
            y = graph.Slice(y, *(np.array(values, np.int64) for values in ([0, 0], [grid, grid], [1, 2])))
        x = graph.Add(x, y)
        y = graph.Gelu(self.linear(self.norm(x, f"{name}.norm2", 1e-6), f"{name}.mlp.lin1"))
        return graph.Add(x, self.linear(y, f"{name}.mlp.lin2"))

    def encoder_attention(self, x, name, batch, side):
        """Over `side` x `side` tokens, with relative positions; to [batch, token, channel]."""
        graph, heads = self.graph, self.config["num_heads"]
        width, tokens, images = self.config["embed_dim"] // heads, side * side, batch * heads
        qkv = self.linear(graph.reshape(x, batch, tokens, heads * width), f"{name}.qkv")
        qkv = graph.permute(graph.reshape(qkv, batch, tokens, 3, heads, width), 2, 0, 3, 1, 4)
        q, k, v = (
            graph.reshape(graph.Gather(qkv, np.array(part), axis=0), images, tokens, width) for part in range(3)
        )
        scaled = graph.Mul(q, np.array(width**-0.5, np.float32))
        scores = graph.MatMul(scaled, graph.permute(k, 0, 2, 1))

        # One product per query row (or column), over all images at once.
        pairs = np.arange(side)[:, None] - np.arange(side) + side - 1
        by_row, by_column = (self.state[f"{name}.rel_pos_{axis}"][pairs].transpose(0, 2, 1) for axis in "hw")
        q = graph.reshape(q, images, side, side, width)
        rows = graph.reshape(graph.permute(q, 1, 0, 2, 3), side, images * side, width)
        rows = graph.reshape(graph.MatMul(rows, by_row), side, images, side, side)
        rows = graph.reshape(graph.permute(rows, 1, 0, 2, 3), images, side, side, side, 1)
        columns = graph.reshape(graph.permute(q, 2, 0, 1, 3), side, images * side, width)
        columns = graph.reshape(graph.MatMul(columns, by_column), side, images, side, side)
        columns = graph.reshape(graph.permute(columns, 1, 2, 0, 3), images, side, side, 1, side)
        scores = graph.Add(graph.reshape(scores, images, side, side, side, side), graph.Add(rows, columns))

        x = graph.MatMul(graph.Softmax(graph.reshape(scores, images, tokens, tokens), axis=-1), v)
        x = graph.permute(graph.reshape(x, batch, heads, tokens, width), 0, 2, 1, 3)
        return self.linear(graph.reshape(x, batch, tokens, heads * width), f"{name}.proj")

    def positions(self):
        """The positional grid, [token, channel]."""
        centres = (np.arange(self.grid, dtype=np.float32) + 0.5) / self.grid
        coordinates = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
        gaussian = self.state["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
        angles = (2 * coordinates - 1) @ gaussian * np.float32(2 * np.pi)
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    def decoder(self, image):
        """[batch, row, column, channel] to logits [batch, class, side, side]."""
        graph, state, batch, grid = self.graph, self.state, self.batch, self.grid
        dim, name = self.config["prompt_dim"], "mask_decoder"
        start = [state[f"{name}.{token}.weight"] for token in ("iou_token", "mask_tokens")]
        tokens = np.repeat(np.concatenate(start)[None], batch, axis=0)
        image = graph.Add(image, state["prompt_encoder.no_mask_embed.weight"])
        image = graph.reshape(image, batch, grid * grid, dim)
        tokens, image = self.transformer(tokens, image, self.positions(), f"{name}.transformer")
        masks = len(start[1])
        weights = []
        for mask in range(masks):
            token = graph.Gather(tokens, np.array([1 + mask]), axis=1)
            weights.append(self.mlp(token, f"{name}.output_hypernetworks_mlps.{mask}"))
        pixels = self.upscaling(image, f"{name}.output_upscaling")
        logits = graph.MatMul(graph.Concat(*weights, axis=1), graph.permute(pixels, 0, 2, 1))
        # Each place holds its children's children: rows first, then columns, stage by stage.
        logits = graph.reshape(logits, batch * masks, grid, grid, *[2] * 8)
        logits = graph.permute(logits, 0, 1, 3, 5, 7, 9, 2, 4, 6, 8, 10)
        return graph.reshape(logits, batch, masks, 16 * grid, 16 * grid)

    def transformer(self, tokens, image, positions, name):
        graph = self.graph
        queries = tokens
        for index in range(2):
            layer = f"{name}.layers.{index}"
            if index == 0:
                queries = self.attention(queries, queries, queries, f"{layer}.self_attn")
            else:
                q = graph.Add(queries, tokens)
                queries = graph.Add(queries, self.attention(q, q, queries, f"{layer}.self_attn"))
            queries = self.norm(queries, f"{layer}.norm1", 1e-5)
            q, k = graph.Add(queries, tokens), graph.Add(image, positions)
            attended = self.attention(q, k, image, f"{layer}.cross_attn_token_to_image")
            queries = self.norm(graph.Add(queries, attended), f"{layer}.norm2", 1e-5)
            hidden = graph.Relu(self.linear(queries, f"{layer}.mlp.lin1"))
            queries = graph.Add(queries, self.linear(hidden, f"{layer}.mlp.lin2"))
            queries = self.norm(queries, f"{layer}.norm3", 1e-5)
            q = graph.Add(queries, tokens)
            attended = self.attention(k, q, queries, f"{layer}.cross_attn_image_to_token")
            image = self.norm(graph.Add(image, attended), f"{layer}.norm4", 1e-5)
        q, k = graph.Add(queries, tokens), graph.Add(image, positions)
        attended = self.attention(q, k, image, f"{name}.final_attn_token_to_image")
        return self.norm(graph.Add(queries, attended), f"{name}.norm_final_attn", 1e-5), image

    def attention(self, q, k, v, name):
        graph, batch, heads = self.graph, self.batch, self.config["decoder_heads"]
        inner = len(self.state[f"{name}.q_proj.weight"])
        width = inner // heads

        def split(x, letter):
            x = self.linear(x, f"{name}.{letter}_proj")
            return graph.permute(graph.reshape(x, batch, -1, heads, width), 0, 2, 1, 3)

        q, k, v = split(q, "q"), split(k, "k"), split(v, "v")
        scores = graph.MatMul(q, graph.permute(k, 0, 1, 3, 2))
        scores = graph.Div(scores, np.array(width**0.5, np.float32))
        x = graph.permute(graph.MatMul(graph.Softmax(scores, axis=-1), v), 0, 2, 1, 3)
        return self.linear(graph.reshape(x, batch, -1, inner), f"{name}.out_proj")

    def mlp(self, x, name):
        for layer in range(3):
            x = self.linear(x if layer == 0 else self.graph.Relu(x), f"{name}.layers.{layer}")
        return x

    def upscaling(self, x, name):
        """Each place to its four children, four times: [batch, place * 256, channel]."""
        graph = self.graph
        for stage in range(4):
            weight, bias = (self.state[f"{name}.{3 * stage}.{part}"] for part in ("weight", "bias"))
            inputs, outputs = weight.shape[:2]
            x = graph.MatMul(x, weight.transpose(0, 2, 3, 1).reshape(inputs, 4 * outputs))
            x = graph.Add(graph.reshape(x, self.batch, -1, outputs), bias)
            if stage < 3:
                x = self.norm(x, f"{name}.{3 * stage + 1}", 1e-6)
            x = graph.Gelu(x)
        return x


def main(merged, batch, out):
    batch = int(batch)
    with safe_open(merged, "numpy") as file:
        note = json.loads((file.metadata() or {}).get("flapsam_export", "{}"))
        if note.get("format") != "merged":
            sys.exit(f"{merged}: not what 'flapsam export --format merged' writes")
        state = {key: file.get_tensor(key) for key in file.keys()}
    config, classes = note["adapter"]["sam"], len(note["adapter"]["classes"])
    network, side = Network(state, config, batch), config["image_size"]
    inputs = {"slices": [batch, 1, side, side]}
    model = network.graph.model(
        network.probabilities("slices"), inputs, {"probabilities": [batch, classes, side, side]}
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
