"""Secure aggregation: Flower's SecAgg+ carries what sites add, and the server learns the sum of it alone.

The program makes integers of each site's part of the mean. SecAgg+ is set up so that what it would round is whole already and
what it would weight counts once: so the sum is exact, and the same as in one process.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Message
from flwr.client.mod import secaggplus_mod
from flwr.clientapp.typing import ClientAppCallable
from flwr.common import Code, FitIns, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS
from flwr.compat.common.recorddict_compat import (
    fitres_to_recorddict,
    parameters_to_arrayrecord,
    recorddict_to_fitins,
)
from flwr.server import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key

from .exchange import PAUSE_SECONDS, Exchange
from .program import Program

# Addends and sums are below 2^23, as the program sees to; masks have 32 bits, so that there is room for 255 sites.
RANGE = 1 << 24
WEIGHT = 1000
NOTHING = Parameters([], "numpy.ndarray")


def is_masked(message: Message) -> bool:
    """Whether a message is of SecAgg+."""
    return RECORD_KEY_CONFIGS in message.content.config_records


def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """SecAgg+ at a site, for the messages that are its own."""
    return secaggplus_mod(message, context, call_next) if is_masked(message) else call_next(message, context)


def add(message: Message, program: Program, site: str) -> Message:
    """Trains the round that is asked for, and says what the site adds; `mod` masks it before it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        order, out, addend = (Path(folder, name) for name in ("order.safetensors", "out.safetensors", "addend"))
        order.write_bytes(recorddict_to_fitins(message.content, keep_input=True).config["order"])
        program.run("client", "round", "--site", site, "--order", order, "--out", out, "--addend", addend)
        integers = np.fromfile(addend, "<i4").astype(np.float64)
        facts = {"site": site, "file": out.read_bytes()}
    result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([integers]), WEIGHT, facts)
    return Message(content=fitres_to_recorddict(result, keep_input=False), reply_to=message)


@dataclass
class Node:
    """What SecAgg+ must know of a site."""

    node_id: int


@dataclass
class Round:
    """A round's orders, as a strategy of Flower's, and what comes of them."""

    orders: Mapping[int, bytes]
    updates: dict[str, bytes] = field(default_factory=dict)
    sum: bytes = b""

    def configure_fit(self, server_round, parameters, client_manager) -> list[tuple[Node, FitIns]]:
        """Each site's order."""
        return [(Node(node), FitIns(NOTHING, {"order": order})) for node, order in self.orders.items()]

    def aggregate_fit(self, server_round, results, failures) -> tuple[None, dict]:
        """Keeps the sum: what comes is the mean over the sites, each counted once."""
        self.updates = {result.metrics["site"]: result.metrics["file"] for _, result in results}
        (mean,) = parameters_to_ndarrays(results[0][1].parameters)
        self.sum = np.rint(mean * len(results)).astype("<i4").tobytes()
        return None, {}


def sum_up(exchange: Exchange, context: Context, number: int, orders: Mapping[str, bytes]) -> Round:
    """A round's updates, without parameters, and the sum of what all its sites add. A protocol that a site breaks off begins
    anew, until the deadline: a site that has trained says at once what it said before."""
    protocol = SecAggPlusWorkflow(
        num_shares=1.0,
        reconstruction_threshold=0.5,
        max_weight=float(WEIGHT),
        clipping_range=RANGE / 2,
        quantization_range=RANGE,
        timeout=exchange.again_seconds,
    )
    end = time.monotonic() + exchange.deadline_seconds
    while time.monotonic() < end:
        exchange.discover()
        if orders.keys() <= exchange.nodes.keys():
            made = Round({exchange.nodes[site]: order for site, order in orders.items()})
            state = context.state
            state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: number})
            state.array_records[MAIN_PARAMS_RECORD] = parameters_to_arrayrecord(NOTHING, keep_input=True)
            protocol(exchange.grid, LegacyContext(context, strategy=made))
            if made.updates.keys() == orders.keys():
                return made
        time.sleep(PAUSE_SECONDS)
    raise RuntimeError(f"round {number}: within {exchange.deadline_seconds:g} s not all of {', '.join(orders)} were summed up")
