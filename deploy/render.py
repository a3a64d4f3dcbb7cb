"""Renders deploy/small.yaml from the chart: one file for `kubectl apply -f`. `make manifests` runs it.

python -m deploy.render [--helm FILE]
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

DEPLOY = Path(__file__).parent
NAMESPACE = "kpatrol"
# Of templates only: the chart says from which version on it works.
KUBERNETES = "1.35.0"
HEAD = f"""# Rendered from deploy/chart with deploy/small-values.yaml by `make manifests`: change those, not this.
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    # The strictest of the Pod Security Standards: nothing in here needs more.
    pod-security.kubernetes.io/enforce: restricted
"""


def rendered(helm: str) -> str:
    """The file's text. Raises CalledProcessError with Helm's words in stderr."""
    command = [helm, "template", "kpatrol", str(DEPLOY / "chart"), "--namespace", NAMESPACE, "--no-hooks"]
    command += ["--kube-version", KUBERNETES, "--values", str(DEPLOY / "small-values.yaml")]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # Nobody's release: what applies it is kubectl.
    text = text.replace("app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: kubectl")
    text = re.sub(r"^# Source: .*\n", "", text, flags=re.MULTILINE)
    return HEAD + re.sub(r"[ \t]+$|^\n", "", text, flags=re.MULTILINE)


def main(arguments: list[str]) -> int:
    """The process; see the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--helm", default="", help="default: helm of the PATH, else one built by Go")
    options = parser.parse_args(arguments)
    try:
        helm = options.helm or shutil.which("helm") or _built()
        (DEPLOY / "small.yaml").write_text(rendered(helm))
    except OSError as error:
        print(f"render: {error.filename}: {error.strerror}; expected Helm 3", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"render: {error.stderr.strip()}", file=sys.stderr)
        return 2
    return 0


def _built() -> str:
    from tests.cluster.binaries import ensure

    return str(ensure("helm")["helm"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
