"""Signs a file as minisign does (jedisct1.github.io/minisign, signature format "ED"), with a new key.

    minisign.py FILE PUBLIC_KEY    # writes FILE.minisig and the public key
"""

import base64
import hashlib
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

path, public = sys.argv[1:]
key, number = Ed25519PrivateKey.generate(), b"01234567"
with open(path, "rb") as file:
    signature = key.sign(hashlib.blake2b(file.read()).digest())
comment = "a test"
together = key.sign(signature + comment.encode())
encoded = base64.b64encode(b"ED" + number + signature).decode()
with open(path + ".minisig", "w") as file:
    file.write(f"untrusted comment: a test\n{encoded}\ntrusted comment: {comment}\n{base64.b64encode(together).decode()}\n")
raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
with open(public, "w") as file:
    file.write(f"untrusted comment: a test\n{base64.b64encode(b'Ed' + number + raw).decode()}\n")
