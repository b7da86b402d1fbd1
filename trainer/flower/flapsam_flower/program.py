"""The program `flapsam`, called as a hospital's engineer would call it."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path


class Refused(Exception):
    """The program said why it would not."""


@dataclass(frozen=True)
class Program:
    """A site's or the server's program, with the words that all its calls have in common."""

    path: str
    experiment: str
    data: str
    state: str

    @classmethod
    def of(cls, config) -> "Program":
        """From a SuperNode's or an app's settings."""
        missing = [key for key in ("experiment", "data", "state") if not config.get(key)]
        if missing:
            raise Refused(f"the settings lack {', '.join(missing)}; see the app's README.md")
        path, *rest = (str(config.get(key, "flapsam")) for key in ("program", "experiment", "data", "state"))
        return cls(path, *rest)

    def run(self, part: str, what: str, *words: str | Path) -> str:
        """Its standard output; `Refused` with its reason if it fails."""
        command = [self.path, part, what, self.experiment, "--data", self.data, "--state", self.state]
        try:
            done = subprocess.run([*command, *map(str, words)], capture_output=True, text=True, check=False)
        except OSError as why:
            raise Refused(f"the program {self.path} cannot be started ({why}); name it in the settings") from why
        if done.returncode != 0:
            raise Refused(done.stderr.strip().removeprefix("flapsam: "))
        return done.stdout

    def standing(self, what: str, *words: str | Path) -> dict:
        """Where the federation stands after a step of the server."""
        return json.loads(self.run("server", what, "--json", *words))
