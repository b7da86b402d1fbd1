"""Validates RO-Crates: the folders on the command line, each against RO-Crate 1.1, and Process Run
Crate 0.5 with what that profile recommends, and reads each as its Python library.

The validator asks the network for the context that a crate names. Here it gets the copy that the library carries.
"""

import json
import sys
from importlib import resources
from types import SimpleNamespace

from rocrate.rocrate import ROCrate
from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester

CONTEXT = "https://w3id.org/ro/crate/1.1/context"


def copy_of(address):
    text = resources.files("rocrate").joinpath("data/ro-crate.jsonld").read_text(encoding="utf-8")
    assert json.loads(text)["@id"] == CONTEXT, "the library carries another version's context"
    assert address == CONTEXT, f"nothing but the context may be asked for: {address}"
    return text


def answer(_, address, **__):
    text = copy_of(address)
    headers = {"Content-Type": "application/ld+json"}
    return SimpleNamespace(
        status_code=200, ok=True, headers=headers, text=text, content=text.encode(), json=lambda: json.loads(text)
    )


HttpRequester.get = answer

for folder in sys.argv[1:]:
    settings = services.ValidationSettings(
        rocrate_uri=folder,
        profile_identifier="process-run-crate-0.5",
        requirement_severity=models.Severity.RECOMMENDED,
        offline=True,
    )
    result = services.validate(settings)
    # What RO-Crate itself recommends (an author's affiliation, a publisher's address), a run cannot know.
    counts = [
        issue
        for issue in result.get_issues()
        if issue.check.severity == models.Severity.REQUIRED or issue.check.identifier.startswith("process-run-crate")
    ]
    for issue in counts:
        print(f"{folder}: {issue.check.identifier}: {issue.message}")
    crate = ROCrate(folder)
    files = sorted(entity.id for entity in crate.get_by_type("File"))
    print(json.dumps({"valid": not counts, "name": crate.root_dataset["name"], "files": files}))
