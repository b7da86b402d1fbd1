"""A site's program that misbehaves: `flapsam` itself, but for what a scene says it does wrong.

    misbehave.py SCENE.json ARGUMENTS OF FLAPSAM..
"""

import json
import struct
import subprocess
import sys
import time
from pathlib import Path

ROUND = b"round = "


def header_of(update: bytes) -> tuple[dict, bytes]:
    (length,) = struct.unpack("<Q", update[:8])
    return json.loads(update[8 : 8 + length]), update[8 + length :]


def file_of(header: dict, values: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + values


def round_of(update: bytes) -> int:
    about = header_of(update)[0]["__metadata__"]["flapsam_message"].encode()
    return int(about.split(ROUND, 1)[1].split(b"\n", 1)[0])


def first_tensor(header: dict) -> dict:
    return header[min(key for key in header if key != "__metadata__")]


def not_finite(update: bytes) -> bytes:
    header, values = header_of(update)
    start = first_tensor(header)["data_offsets"][0]
    return file_of(header, values[:start] + struct.pack("<f", float("nan")) + values[start + 4 :])


def wrong_shape(update: bytes) -> bytes:
    header, values = header_of(update)
    tensor = first_tensor(header)
    count = 1
    for side in tensor["shape"]:
        count *= side
    tensor["shape"] = [count, 1, 1]
    return file_of(header, values)


def scaled(update: bytes) -> bytes:
    header, values = header_of(update)
    numbers = struct.unpack(f"<{len(values) // 4}f", values)
    return file_of(header, struct.pack(f"<{len(numbers)}f", *(1000 * number for number in numbers)))


SPOIL = {"not_finite": not_finite, "wrong_shape": wrong_shape, "scaled": scaled}


def main() -> int:
    scene = json.loads(Path(sys.argv[1]).read_text())
    words = sys.argv[2:]
    if words[1] == "round" and scene.get("silent_from") is not None:
        order = Path(words[words.index("--order") + 1]).read_bytes()
        if round_of(order) >= scene["silent_from"]:
            time.sleep(10_000)
    code = subprocess.run([scene["program"], *words], check=False).returncode
    if code != 0 or "--out" not in words:
        return code
    out = Path(words[words.index("--out") + 1])
    made = out.read_bytes()
    if words[1] == "enrol" and "version" in scene:
        # As long as the true one, so that the file stays whole.
        out.write_bytes(made.replace(b"flapsam 0.1.0", scene["version"].encode()))
    if words[1] == "round":
        number = round_of(made)
        last = Path(scene["folder"], "last-update")
        fault = scene.get("faults", {}).get(str(number))
        if fault == "replayed":
            out.write_bytes(last.read_bytes())
        elif fault is not None:
            out.write_bytes(SPOIL[fault](made))
        last.write_bytes(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
