"""Makes the reference cases anew: python reference_cases.py REFERENCE OUT

REFERENCE is a clone of https://github.com/BioMedIA-MBZUAI/FLAP-SAM at the commit below. Its own code is imported and run:
builder, loading of checkpoints, networks, loss, training loop and the average of pairs. Changed at run time are the sizes
that its builder has fixed, packages that nothing here calls, and what would need a GPU, data or a log file.
OUT gets a folder for each case and `aggregate.safetensors`; `tests/fixtures/README.md` says what is in them.
Needs torch, numpy, safetensors and scikit-learn.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import torch
from safetensors.torch import save_file

COMMIT = "f2cf1becb2c68dddc913fa06baff169e20c14cff"
# What the reference imports for its data, pictures and logs.
UNUSED = """cv2 einops h5py icecream imageio medpy nibabel pandas PIL PIL.Image PIL.ImageDraw PIL.ImageEnhance PIL.ImageOps
SimpleITK tensorboardX torchinfo torchvision torchvision.ops.boxes torchvision.transforms.functional tqdm""".split()

ENCODER = {"embed_dim": 24, "depth": 4, "num_heads": 3, "global_attn_indexes": [1, 3]}
DECODER = {"prompt_dim": 32, "decoder_mlp_dim": 48, "decoder_heads": 2}
CONFIG = {"image_size": 64, "patch_size": 16, "window_size": 3, **ENCODER, **DECODER}
USUAL = {"train_image_size": 64, "num_classes": 2, "rank": 4, "num_lora": 1, "dora": False, "lora_scale": 1.0}
CASES = {
    "dora": USUAL | {"dora": True},
    "one-class": USUAL | {"num_classes": 1, "rank": 2},
    "resized": USUAL | {"train_image_size": 96, "rank": 8},
    "same-size": USUAL,
    "two-lora": USUAL | {"num_lora": 2},
}
SCHEDULE = {"base_lr": 8e-4, "warmup_period": 2, "max_iterations": 10, "lr_exp": 7, "weight_decay": 0.1}
STEPS, SLICES, DICE_WEIGHT = 4, 5, 0.8


def check(folder):
    """The reference must be what it is said to be."""

    def git(*arguments):
        return subprocess.run(["git", "-C", folder, *arguments], stdout=subprocess.PIPE, text=True).stdout.strip()

    commit = git("rev-parse", "HEAD")
    if commit != COMMIT:
        sys.exit(f"{folder} is to be a clone at {COMMIT}, and is at {commit or 'no commit'}")
    if git("status", "--porcelain"):
        sys.exit(f"{folder} has changes; make a new clone")


def load(folder):
    """The reference's modules, for small networks on the CPU."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    torch.Tensor.cuda = lambda tensor: tensor
    sys.modules.update({name: MagicMock() for name in UNUSED})
    names = {"trainer": "trainer", "utils": "utils", "build": "segment_anything.build_sam"}
    names["decoder"] = "segment_anything.modeling.mask_decoder"
    reference = SimpleNamespace(**{key: importlib.import_module(name) for key, name in names.items()})
    # Others, PyTorch among them, look for some of these packages later on.
    for name in UNUSED:
        del sys.modules[name]
    shrink(reference.build)
    return reference


def shrink(builder):
    """Networks of the sizes in CONFIG instead of those that the builder has fixed."""

    def resize(part, **sizes):
        made = getattr(builder, part)
        setattr(builder, part, lambda **given: made(**given | sizes))

    dim = CONFIG["prompt_dim"]
    resize("ImageEncoderViT", window_size=CONFIG["window_size"], out_chans=dim)
    resize("PromptEncoder", embed_dim=dim)
    resize("TwoWayTransformer", embedding_dim=dim, mlp_dim=CONFIG["decoder_mlp_dim"], num_heads=CONFIG["decoder_heads"])
    resize("MaskDecoder", transformer_dim=dim, iou_head_hidden_dim=dim)


def build(reference, image_size, num_classes, **lora):
    encoder = {f"encoder_{name}": value for name, value in ENCODER.items()}
    sizes = {"image_size": image_size, "num_classes": num_classes, "pixel_mean": [0.0] * 3, "pixel_std": [1.0] * 3}
    network, _ = reference.build._build_sam(**encoder, **sizes, **lora)
    return network


@torch.no_grad()
def draw(network):
    """Moves every parameter, so that none is zero or one as it was made."""
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@torch.no_grad()
def soften(decoder):
    """Keeps the last channel norm, over two channels in networks as small as these, from being a step.

    It is one unless what comes in is about as small as the root of its epsilon, and gradients in f32 are rounding then.
    """
    for parameter in decoder.output_upscaling[6].parameters():
        parameter.mul_(0.01)


def official(reference):
    """The published layout: four mask tokens, and an upscaling that ends where the reference's goes on."""
    network = build(reference, CONFIG["image_size"], 3)
    decoder, dim = network.mask_decoder, CONFIG["prompt_dim"]
    decoder.output_upscaling = torch.nn.Sequential(*decoder.output_upscaling[:4], torch.nn.GELU())
    mlps = [reference.decoder.MLP(dim, dim, dim // 8, 3) for _ in range(decoder.num_mask_tokens)]
    decoder.output_hypernetworks_mlps = torch.nn.ModuleList(mlps)
    return draw(network)


def adapted(reference, case, base):
    lora = {"r": case["rank"], "num_lora": case["num_lora"], "lora_scale": case["lora_scale"], "enable_dora": case["dora"]}
    network = draw(build(reference, case["train_image_size"], case["num_classes"], **lora))
    soften(network.mask_decoder)
    places = case["train_image_size"], CONFIG["patch_size"], CONFIG["global_attn_indexes"]
    network.load_state_dict(reference.build.load_from(network, base, *places))
    return network


def trained_by_method(names):
    lora = {name for name in names if "lora" in name}
    plain = set(names) - lora
    heads = {name for name in plain if name.startswith(("mask_decoder.output", "mask_decoder.mask_tokens"))}
    decoder = {name for name in plain if name.startswith("mask_decoder")}
    attention = {name for name in plain if "attn" in name and "norm_final_attn" not in name}
    return {
        "full_ft": plain,
        "attention_ft": attention | heads,
        "decoder_ft": decoder,
        "partial_decoder_ft": heads,
        "lora_ft": lora,
        "flap_sam": lora | heads,
        "lora_decoder_ft": lora | decoder,
    }


def decode(network, embedding, points=None, boxes=None):
    """The prompt's embedding; masks and scores without the first, which is SAM's answer where one mask is asked for."""
    sparse, dense = network.prompt_encoder(points=points, boxes=boxes, masks=None)
    masks, scores = network.mask_decoder(embedding, network.prompt_encoder.get_dense_pe(), sparse, dense, True)
    return sparse, masks[:, 1:], scores[:, 1:]


@torch.no_grad()
def official_outputs(network):
    image = torch.rand(2, 3, CONFIG["image_size"], CONFIG["image_size"])
    points, labels = torch.tensor([[[10.5, 20.25], [33.0, 5.0]]]), torch.tensor([[1.0, 0.0]])
    box = torch.tensor([[8.0, 9.0, 40.0, 50.0]])
    embedding = network.image_encoder(image)
    _, masks, scores = decode(network, embedding)
    outputs = {"image": image, "image_embedding": embedding, "dense_pe": network.prompt_encoder.get_dense_pe()}
    outputs |= {"no_prompt.masks": masks, "no_prompt.iou": scores}
    sparse, masks, scores = decode(network, embedding[:1], (points, labels), box)
    outputs |= {"prompt.points": points, "prompt.point_labels": labels, "prompt.box": box}
    return outputs | {"prompt.sparse": sparse, "prompt.masks": masks, "prompt.iou": scores}


def forward_backward(reference, network, case, stack, label):
    outputs = network(stack, True, case["train_image_size"])
    cross_entropy, dice = torch.nn.CrossEntropyLoss(ignore_index=-100), reference.utils.DiceLoss(case["num_classes"] + 1)
    losses = reference.trainer.calc_loss(outputs, label, cross_entropy, dice, DICE_WEIGHT)
    losses[0].backward()
    results = {"stack": stack, "label": label, "low_res_logits": outputs["low_res_logits"], "masks": outputs["masks"]}
    results |= {name: loss.reshape(1) for name, loss in zip(["loss", "loss_ce", "loss_dice"], losses)}
    # Prompts and scores have no part in the loss.
    gradients = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    network.zero_grad()
    return results | {f"grad.{name}": gradient for name, gradient in gradients.items()}


def local_trainer(reference, network, case, batch):
    """The reference's trainer of one client, whose epoch is this batch."""
    trainer = reference.trainer
    trainer.dataset_reader = trainer.SummaryWriter = trainer.logging = MagicMock()
    trainer.DataLoader = lambda *_, **__: [batch]
    arguments = {name: SCHEDULE[name] for name in ["base_lr", "warmup_period", "lr_exp"]}
    arguments |= {"max_epochs": SCHEDULE["max_iterations"], "warmup": True, "AdamW": True, "dice_param": DICE_WEIGHT}
    arguments |= {"num_classes": case["num_classes"], "img_size": case["train_image_size"], "use_amp": False, "seed": 0}
    arguments |= {"batch_size": 1, "n_gpu": 1, "root_path": "", "output": ""}
    return trainer.LocalTrainer(SimpleNamespace(**arguments), network, "", True, case["train_image_size"], "A")


def adamw_steps(reference, network, case, stack, label):
    """FLAP-SAM's trained parameters after the steps, and the loss and the rate of each step."""
    parameters = dict(network.named_parameters())
    trained = trained_by_method(parameters)["flap_sam"]
    for name, parameter in parameters.items():
        parameter.requires_grad = name in trained
    batch = {"image": stack[:, :, 0], "label": label[None], "low_res_label": label[None]}
    local = local_trainer(reference, network, case, batch)
    rates = []
    for _ in range(STEPS):
        rates.append(local.optimizer.param_groups[0]["lr"])
        local.train_one_epoch()
    logged = [call.args for call in local.writer.add_scalar.call_args_list]
    losses = [loss.item() for name, loss, _ in logged if name == "info/total_loss"]
    return {name: parameters[name] for name in trained}, losses, rates


def write(path, tensors):
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)


def write_case(reference, folder, case):
    folder.mkdir(parents=True, exist_ok=True)
    base = official(reference)
    torch.save(base.state_dict(), folder / "sam.pth")
    write(folder / "sam.safetensors", base.state_dict())
    write(folder / "sam_forward.safetensors", official_outputs(base))
    network = adapted(reference, case, base.state_dict())
    write(folder / "flap.safetensors", network.state_dict())
    side = case["train_image_size"]
    stack = torch.rand(1, SLICES, 1, side, side).repeat(1, 1, 3, 1, 1)
    label = torch.randint(case["num_classes"] + 1, (SLICES, side, side)).float()
    results = forward_backward(reference, network, case, stack, label)
    write(folder / "flap_forward_backward.safetensors", results)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    counts = {method: sum(sizes[name] for name in names) for method, names in trained_by_method(sizes).items()}
    trained, losses, rates = adamw_steps(reference, network, case, stack, label)
    write(folder / "flap_after_4_steps.safetensors", trained)
    meta = {"config": CONFIG, **case, "trainable": counts, "loss": results["loss"].item(), "torch": torch.__version__}
    meta |= {"reference": COMMIT, "adamw": SCHEDULE | {"losses": losses, "lr_used": rates}}
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def product(reference, a, b, weights, rank):
    """The weighted sum of the clients' products, at most of the given rank, as the reference's server makes it."""
    pair = reference.trainer.update_peft_parameters({"lora_w_a_q": a, "lora_w_b_q": b}, weights.tolist(), rank)
    return pair["lora_w_b_q"] @ pair["lora_w_a_q"]


def write_aggregate(reference, path):
    weights, rank = torch.tensor([0.1, 0.45, 0.25, 0.2]), 3
    a, b, plain = torch.randn(4, rank, 20), torch.randn(4, 28, rank), torch.randn(4, 5, 7)
    tensors = {"weights": weights, "lora_a": a, "lora_b": b, "plain": plain}
    tensors["plain_average"] = torch.einsum("c,cij->ij", weights, plain)
    # Four products of rank 3 have rank 12 together.
    tensors["product"] = product(reference, a, b, weights, 4 * rank)
    tensors["product_rank_r"] = product(reference, a, b, weights, rank)
    write(path, tensors)


def main(folder, out):
    check(folder)
    reference = load(folder)
    for seed, (name, case) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        write_case(reference, out / name, case)
    torch.manual_seed(len(CASES))
    np.random.seed(len(CASES))
    write_aggregate(reference, out / "aggregate.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
