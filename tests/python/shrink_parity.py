"""Makes the reference cases small enough for the repository: python shrink_parity.py FROM TO

Nothing is computed anew. Of each case the outputs of the first slice stay (the loss and the gradients are of all five), of
the image the one channel that all three repeat, and labels in 16 bits. The official network stays for one case, in both
forms (another case has the same configuration). For three cases only those gradients stay that the others do not have: of the pairs,
of their mixing, of the position tables, and of the heads of another number of classes.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

OFFICIAL = {"dora": ["sam.safetensors", "sam_forward.safetensors", "sam.pth"]}
OWN_GRADIENTS = ["one-class", "resized", "two-lora"]
OWN = [".lora_", "pos_embed", "rel_pos_", "hypernetworks", "mask_tokens"]


def shrink(source, target):
    target.mkdir(parents=True, exist_ok=True)
    outputs = load_file(source / "flap_forward_backward.safetensors")
    for name in ["low_res_logits", "masks"]:
        outputs[name] = np.ascontiguousarray(outputs[name].reshape(-1, *outputs[name].shape[-3:])[:1])
    stack, label = outputs["stack"], outputs["label"]
    assert (stack == stack[:, :, :1]).all(), "the channels repeat each other"
    outputs["stack"] = np.ascontiguousarray(stack[:, :, :1])
    outputs["label"] = label.astype(np.float16)
    assert (outputs["label"] == label).all(), "labels are small whole numbers"
    if source.name in OWN_GRADIENTS:
        own = lambda name: any(part in name for part in OWN)
        outputs = {name: values for name, values in outputs.items() if not name.startswith("grad.") or own(name)}
    save_file(outputs, target / "flap_forward_backward.safetensors")
    kept = ["meta.json", "flap.safetensors", "flap_after_4_steps.safetensors", *OFFICIAL.get(source.name, [])]
    for name in kept:
        shutil.copyfile(source / name, target / name)


def main(source, target):
    for case in sorted(path.parent for path in source.glob("*/meta.json")):
        shrink(case, target / case.name)
    shutil.copyfile(source / "aggregate.safetensors", target / "aggregate.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
