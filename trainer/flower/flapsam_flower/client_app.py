"""A hospital: it trains on its own scans when the server asks, and hands in what it has trained."""

import tempfile
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from . import secure
from .program import Program, Refused
from .wire import content, facts

app = ClientApp(mods=[secure.mod])


def site_of(context: Context) -> str:
    """The site's name, from its SuperNode's settings."""
    site = str(context.node_config.get("site", ""))
    if not site:
        raise Refused("the SuperNode's --node-config lacks site; see the app's README.md")
    return site


def answer(message: Message, context: Context, what: str, *, hands_in: bool) -> Message:
    """Has the program do what the server asks, and replies with the file that it writes, or with why it would not."""
    config = context.node_config
    try:
        site = site_of(context)
        with tempfile.TemporaryDirectory() as folder:
            order, out = Path(folder, "order.safetensors"), Path(folder, "out.safetensors")
            words: list[str | Path] = ["--site", site]
            if "order" in (asked := facts(message)):
                order.write_bytes(asked["order"])
                words += ["--order", order]
            words += ["--out", out] if hands_in else ["--json"]
            said = Program.of(config).run("client", what, *words)
            file = out.read_bytes() if hands_in else said.encode()
        reply = content(site=site, file=file)
    except Refused as why:
        reply = content(site=str(config.get("site", "")), refused=str(why))
    return Message(content=reply, reply_to=message)


@app.query()
def enrol(message: Message, context: Context) -> Message:
    """What this site enters the federation with."""
    return answer(message, context, "enrol", hands_in=True)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One local round."""
    if secure.is_masked(message):
        return secure.add(message, Program.of(context.node_config), site_of(context))
    return answer(message, context, "round", hands_in=True)


@app.evaluate()
def finish(message: Message, context: Context) -> Message:
    """Takes the finished model over, and judges it on this site's own test cases."""
    return answer(message, context, "finish", hands_in=False)
