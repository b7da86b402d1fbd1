"""The strategy: the program aggregates, and what it knows of the federation lies in its folder, not in memory."""

from collections.abc import Iterable
from logging import INFO, WARN
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from . import secure
from .exchange import Exchange
from .program import Program
from .wire import content, facts


class Flapsam(Strategy):
    """Rounds of `flapsam server`. A server that starts again goes on where its folder is, whatever Flower counts."""

    def __init__(self, program: Program, exchange: Exchange, sites: list[str], context: Context):
        self.program = program
        self.exchange = exchange
        self.sites = sites
        self.context = context
        self.standing: dict = {}

    def summary(self) -> None:
        log(INFO, "flapsam: %s, sites %s, state in %s", self.program.experiment, self.sites, self.program.state)

    def run(self) -> list[dict]:
        """All rounds that are left, then each site's report on the finished model."""
        self.summary()
        enrolments = self.exchange.wait_for(self.sites)
        files = self._files("enrolments", dict(zip(self.sites, enrolments, strict=True)))
        self.standing = self.program.standing("begin", *files)
        while not self.standing["finished"]:
            number = self.standing["round"]
            log(INFO, "[ROUND %s/%s]", number, self.standing["rounds"])
            if self.standing["secure_aggregation"]:
                self._aggregate_sum(number)
            else:
                replies = self.exchange.ask(self._orders(), MessageType.TRAIN)
                self.aggregate_train(number, replies.values())
        replies = self.exchange.ask(self._orders(), MessageType.EVALUATE)
        return [answer for answer in map(facts, replies.values()) if "file" in answer]

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The orders of the round that the folder is at."""
        return [self.exchange.message(site, order, MessageType.TRAIN) for site, order in self._orders().items()]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Has the program make the next state of whatever has come; the arrays stay in its files."""
        updates = {}
        for answer in map(facts, replies):
            if "file" in answer:
                updates[answer["site"]] = answer["file"]
            else:
                log(WARN, "site %s would not train: %s", answer.get("site"), answer.get("refused"))
        self._aggregate(*self._files(f"round-{server_round:05}", updates))
        return None, MetricRecord({site: float(loss) for site, loss in self.standing["loss"].items()})

    def _aggregate_sum(self, number: int) -> None:
        """The same of the sum of what sites add."""
        orders = {site: Path(path).read_bytes() for site, path in self.standing["orders"].items()}
        made = secure.sum_up(self.exchange, self.context, number, orders)
        files = self._files(f"round-{number:05}", made.updates)
        total = files[0].with_name("sum")
        total.write_bytes(made.sum)
        self._aggregate(*files, "--sum", total)

    def _aggregate(self, *words: str | Path) -> None:
        self.standing = self.program.standing("aggregate", *words)
        for site, why in self.standing["left_out"].items():
            log(WARN, "site %s is left out: %s", site, why)
        log(INFO, "\tloss %s", self.standing["loss"])

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing between rounds: sites judge the finished model, once."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """See `configure_evaluate`."""
        return None

    def _orders(self) -> dict[str, RecordDict]:
        orders = self.standing["orders"].items()
        return {site: content(order=Path(path).read_bytes()) for site, path in orders}

    def _files(self, name: str, files: dict[str, bytes]) -> list[Path]:
        """Writes what sites sent beside the state, in the order of their names."""
        folder = Path(self.program.state, "received", name)
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for place, site in enumerate(sorted(files)):
            # A site's name may be anything; its place is a file's name everywhere.
            paths.append(folder / f"{place:05}.safetensors")
            paths[-1].write_bytes(files[site])
        return paths
