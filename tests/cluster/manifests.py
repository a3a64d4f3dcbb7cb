"""Objects that tests apply to try out the cluster itself."""

from __future__ import annotations

import yaml

from tests.cluster.images import image_name


def web_servers(*, port: int = 80) -> str:
    """A DaemonSet `web` (one web server on each node, from the project's own image, as agents run) and its Service."""
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
        },
        "containers": [
            {
                "name": "web",
                "image": image_name("agent"),
                "imagePullPolicy": "Never",
                "command": ["python3", "-m", "http.server", str(port), "--bind", "::", "--directory", "/etc"],
                "readinessProbe": {"httpGet": {"path": "/hostname", "port": port}, "periodSeconds": 1},
                "securityContext": {
                    "readOnlyRootFilesystem": True,
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }
    labels = {"app": "web"}
    objects = [
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {
                "type": "NodePort",
                "ipFamilyPolicy": "PreferDualStack",
                "selector": labels,
                "ports": [{"port": 80, "targetPort": port}],
            },
        },
    ]
    return yaml.safe_dump_all(objects)
