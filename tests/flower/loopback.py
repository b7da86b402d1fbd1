"""A federation on this machine, of real processes: a SuperLink with TLS and SuperNode authentication, and SuperNodes.

Run by tests/tests/flower.rs, which gives it the program, an experiment and the data.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

APP = Path(__file__).parents[2] / "trainer/flower"
QUIET = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "NO_COLOR": "1",
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Loopback:
    """What a test needs of Flower. `close` ends every process."""

    def __init__(self, folder: Path, program: Path, experiment: Path, data: Path, sites: list[str]):
        self.folder, self.program, self.experiment, self.data, self.sites = folder, program, experiment, data, sites
        self.bin = Path(sys.executable).parent
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen] = {}
        self.run_id = ""
        self.environment = {**os.environ, **QUIET, "FLWR_HOME": str(folder / "home")}
        self.environment["PATH"] = f"{self.bin}:{os.environ['PATH']}"
        folder.mkdir(parents=True, exist_ok=True)
        self._certificates()
        for site in sites:
            self.key(site)

    def _call(self, *words: str | Path, check: bool = True) -> str:
        done = subprocess.run(
            [*map(str, words)], capture_output=True, text=True, env=self.environment, cwd=self.folder, check=False
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{words}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def _certificates(self) -> None:
        """A certificate authority of our own, and the SuperLink's certificate."""
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        self._call("openssl", "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=flapsam test")
        self._call("openssl", "req", *key[:-2], "-keyout", "link.key", "-out", "link.csr", "-subj", "/CN=localhost")
        (self.folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
        signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
        self._call("openssl", "x509", "-req", "-in", "link.csr", *signed, "-out", "link.crt")

    def key(self, site: str) -> None:
        """A site's key; elliptic, as Flower wants it."""
        self._call("ssh-keygen", "-t", "ecdsa", "-b", "384", "-N", "", "-q", "-f", f"{site}.pem")

    def start(self, name: str, *words: str | Path) -> None:
        log = open(self.folder / f"{name}.log", "ab")
        command = [*map(str, words)]
        self.processes[name] = subprocess.Popen(
            command, stdout=log, stderr=log, env=self.environment, cwd=self.folder, start_new_session=True
        )

    def kill(self, name: str) -> None:
        """As a power cut would, with all that it has started."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def superlink(self) -> None:
        tls = ["--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "link.crt", "--ssl-keyfile", "link.key"]
        self.start(
            "superlink",
            self.bin / "flower-superlink",
            *tls,
            "--enable-supernode-auth",
            "--database",
            "superlink.db",
            "--port",
            str(self.port),
        )
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "localhost:{self.port}"\n'
            f'root-certificates = "{self.folder / "ca.crt"}"\n'
        )
        self.wait_for(lambda: self._listening(), "the SuperLink", 60)

    def _listening(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def register(self, site: str) -> None:
        self._call(self.bin / "flwr", "supernode", "register", f"{site}.pem.pub", "here")

    def supernode(self, site: str, **config: str) -> None:
        own = {
            "site": site,
            "program": str(self.program),
            "experiment": str(self.experiment),
            "data": str(self.data),
            "state": str(self.folder / f"state-{site}"),
            **config,
        }
        words = " ".join(f'{key}="{value}"' for key, value in own.items())
        self.start(
            f"supernode-{site}",
            self.bin / "flower-supernode",
            "--root-certificates",
            "ca.crt",
            "--superlink",
            f"localhost:{self.port}",
            "--auth-supernode-private-key",
            f"{site}.pem",
            "--port",
            str(free_port()),
            "--node-config",
            words,
        )

    def run(self, **config: str) -> None:
        own = {
            "program": str(self.program),
            "experiment": str(self.experiment),
            "data": str(self.data),
            "state": str(self.folder / "server"),
            "sites": ",".join(self.sites),
            "deadline-seconds": "120",
            "again-seconds": "5",
            **config,
        }
        lines = [f"{key} = {value}" if value.isdigit() else f'{key} = "{value}"' for key, value in own.items()]
        (self.folder / "run.toml").write_text("\n".join(lines))
        said = self._call(self.bin / "flwr", "run", APP, "here", "--run-config", self.folder / "run.toml")
        self.run_id = said.split("started run ")[1].split()[0]

    def wait_for(self, holds, what: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                logs = "".join(f"\n== {log.name}\n{log.read_text()[-3000:]}" for log in self.folder.glob("*.log"))
                raise TimeoutError(f"{what}: not within {seconds:g} s{logs}")
            time.sleep(0.2)

    def finished(self, seconds: float = 240) -> None:
        """Waits until the server has written its results."""
        self.wait_for((self.folder / "server/trace.txt").exists, "the federation's end", seconds)

    def round_began(self, number: int, seconds: float = 120) -> None:
        orders = self.folder / f"server/orders/round-{number:05}"
        self.wait_for(orders.is_dir, f"round {number}", seconds)

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)


    def misbehaving(self, site: str, **scene) -> str:
        """A program for a site that does what `misbehave.py` reads in the scene."""
        file = self.folder / f"scene-{site}.json"
        file.write_text(json.dumps({"program": str(self.program), "folder": str(self.folder), **scene}))
        script = self.folder / f"program-{site}"
        script.write_text(f"#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name('misbehave.py')} {file} \"$@\"\n")
        script.chmod(0o755)
        return str(script)

    def refused(self, words: str, seconds: float = 120) -> None:
        """Waits until the server has said so."""

        def said() -> bool:
            log = self._call(self.bin / "flwr", "log", self.run_id, "here", "--show", check=False)
            # However wide the terminal is that it thinks it writes to.
            return "".join(words.split()) in "".join(log.split())

        self.wait_for(said, f"'{words}'", seconds)

    def supernode_again(self, site: str, seconds: float = 120) -> None:
        """Starts a SuperNode that has died. Until Flower has missed its heartbeats it takes the new one for an impostor,
        and the new one ends."""
        name = f"supernode-{site}"

        def stays() -> bool:
            if name not in self.processes or self.processes[name].poll() is not None:
                self.supernode(site)
            time.sleep(8)
            return self.processes[name].poll() is None

        self.wait_for(stays, f"{name} is let in again", seconds)


def all_there(federation: Loopback, **of_sites: dict) -> None:
    federation.superlink()
    for site in federation.sites:
        federation.register(site)
        federation.supernode(site, **of_sites.get(site, {}))


def plain(federation: Loopback) -> None:
    """Nothing goes wrong; a SuperNode that nobody has registered stays outside."""
    all_there(federation)
    federation.key("stranger")
    federation.supernode("stranger")
    federation.run()
    federation.finished()
    federation.wait_for(
        lambda: federation.processes["supernode-stranger"].poll() is not None, "the stranger is turned away", 60
    )


def secure(federation: Loopback) -> None:
    """Nothing goes wrong, and the server learns sums alone."""
    all_there(federation)
    federation.run(**{"again-seconds": "60"})
    federation.finished()


def supernode_dies(federation: Loopback) -> None:
    """A SuperNode is killed in the second round, and started again."""
    all_there(federation)
    federation.run()
    federation.round_began(2)
    federation.kill("supernode-B")
    federation.supernode_again("B")
    federation.finished()


def superlink_dies(federation: Loopback) -> None:
    """The SuperLink is killed in the second round, with the server in it, and started again."""
    all_there(federation)
    federation.run()
    federation.round_began(2)
    federation.kill("superlink")
    federation.superlink()
    federation.run()
    federation.finished()


def bad_updates(federation: Loopback) -> None:
    """C hands in something else than it should, a round after another."""
    faults = {"2": "not_finite", "3": "wrong_shape", "4": "replayed", "5": "scaled"}
    all_there(federation, C={"program": federation.misbehaving("C", faults=faults)})
    federation.run()
    federation.finished()


def silent(federation: Loopback) -> None:
    """C never answers from the second round on."""
    all_there(federation, C={"program": federation.misbehaving("C", silent_from=2)})
    federation.run(**{"deadline-seconds": "40"})
    federation.finished()


def other_version(federation: Loopback) -> None:
    all_there(federation, C={"program": federation.misbehaving("C", version="flapsam 0.0.9")})
    federation.run()
    federation.refused("site 'C': it is of flapsam 0.0.9")


def other_base(federation: Loopback) -> None:
    text = federation.experiment.read_text()
    line = next(line for line in text.splitlines() if line.startswith("base = "))
    base = Path(line.split('"')[1]).read_bytes()
    other = federation.folder / "base.safetensors"
    # The last bit of the last value.
    other.write_bytes(base[:-4] + bytes([base[-4] ^ 1]) + base[-3:])
    experiment = federation.folder / "other.toml"
    experiment.write_text(text.replace(line, f'base = "{other}"'))
    all_there(federation, C={"experiment": str(experiment)})
    federation.run()
    federation.refused("site 'C': it has another base checkpoint")


SCENES = {
    scene.__name__: scene
    for scene in (plain, secure, supernode_dies, superlink_dies, bad_updates, silent, other_version, other_base)
}


def main() -> None:
    folder, program, experiment, data, sites, what = sys.argv[1:]
    shutil.rmtree(folder, ignore_errors=True)
    federation = Loopback(Path(folder), Path(program), Path(experiment), Path(data), sites.split(","))
    try:
        SCENES[what](federation)
    finally:
        federation.close()


if __name__ == "__main__":
    main()
