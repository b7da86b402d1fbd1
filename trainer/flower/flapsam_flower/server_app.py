"""The coordinating site: it sees updates, never a scan."""

import json
from logging import INFO

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from .exchange import Exchange
from .program import Program
from .strategy import Flapsam

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs the federation to its end."""
    config = context.run_config
    sites = sorted(site.strip() for site in str(config["sites"]).split(",") if site.strip())
    exchange = Exchange(grid, float(config["deadline-seconds"]), float(config["again-seconds"]))
    strategy = Flapsam(Program.of(config), exchange, sites, context)
    for answer in strategy.run():
        report = json.loads(answer["file"])
        log(INFO, "site %s, %s test cases: Dice %s", report["site"], len(report["cases"]), report["dice"])
    log(INFO, "The adapter, the ledger and the trace are in %s", strategy.program.state)
