"""``python -m controller.crds FOLDER``: writes the definitions and the policy of ceilings, one file each.

``python -m controller.crds --ceilings NAMESPACE`` prints ConfigMap and binding of an installation's ceilings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from controller.crds.ceilings import NAME, binding, figures, policy
from controller.crds.definition import definition
from controller.tasks import KINDS, Limits

_HEAD = "# Made by `python -m controller.crds deploy/crds` from controller/tasks; change the models, not this file.\n"


class _Plain(yaml.SafeDumper):
    """Without anchors: other readers than YAML's own look at these files."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def text_of(document: Mapping[str, Any]) -> str:
    """A manifest as YAML."""
    return yaml.dump(document, Dumper=_Plain, sort_keys=False, width=118, allow_unicode=True)


def manifests() -> dict[str, str]:
    """File name → text of everything that belongs to the kinds themselves."""
    documents = [definition(model) for model in KINDS.values()]
    made = {f"{document['metadata']['name']}.yaml": _HEAD + text_of(document) for document in documents}
    return made | {f"{NAME}.yaml": _HEAD + text_of(policy())}


def main(arguments: Sequence[str]) -> int:
    """Writes or prints; 0."""
    parser = argparse.ArgumentParser(prog="python -m controller.crds", description=(__doc__ or "").split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("folder", nargs="?", type=Path, metavar="FOLDER")
    what.add_argument("--ceilings", metavar="NAMESPACE")
    options = parser.parse_args(arguments)
    if options.ceilings:
        documents = [figures(namespace=options.ceilings, limits=Limits()), binding(namespace=options.ceilings)]
        print("---\n".join(text_of(document) for document in documents), end="")
        return 0
    for name, text in manifests().items():
        (options.folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
