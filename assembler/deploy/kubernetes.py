"""A bundle on Kubernetes: an image that holds it, and the objects that run the image.

assembler deploy BUNDLE --kubernetes DIR
docker build -t IMAGE DIR && kubectl apply -f DIR/bundle.yaml
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from assembler.bundle.runtime import Bundle
from assembler.errors import AssemblerError
from assembler.files import aside, write_text
from assembler.serving.limits import read_limits

PORT = 8000
SERVING = (
    "fastapi", "h5py", "httpx", "numpy", "onnxruntime-gpu", "pillow", "prometheus-client", "pydantic", "pyyaml",
    "rapidfuzz", "rich", "ruamel.yaml", "soundfile", "soxr", "tokenizers", "trimesh", "typer", "uvicorn",
)  # fmt: skip
"""What serving imports; torch and transformers are not among it."""
DOCKERFILE = f"""\
# Put the wheel of this package beside this file: pip wheel --no-deps -w . multimodal-assembler
FROM python:3.12-slim
RUN pip install --no-cache-dir {" ".join(SERVING)}
COPY multimodal_assembler-*.whl /tmp/
RUN pip install --no-cache-dir --no-deps /tmp/multimodal_assembler-*.whl
COPY bundle /bundle
USER 65534
ENTRYPOINT ["assembler", "serve", "/bundle", "--host", "0.0.0.0", "--port", "{PORT}", "--keys", "/keys/keys"]
"""


def write_kubernetes(folder: Path, out: Path, image: str) -> None:
    """Write a Dockerfile, the bundle and bundle.yaml (Deployment, Service, NetworkPolicy) to `out`.

    Raises:
        AssemblerError: the bundle is not whole, or `out` exists.
    """
    if out.exists():
        raise AssemblerError(f"{out} exists already; choose another folder or remove it")
    manifest = Bundle(folder).manifest
    name = re.sub(r"[^a-z0-9]+", "-", manifest.name.lower()).strip("-")[:50] or "bundle"
    out.parent.mkdir(parents=True, exist_ok=True)
    with aside(out) as draft:
        draft.mkdir()
        shutil.copytree(folder, draft / "bundle")
        write_text(draft / "Dockerfile", DOCKERFILE)
        write_text(draft / "bundle.yaml", yaml.safe_dump_all(objects(name, image), sort_keys=False))


def objects(name: str, image: str) -> list[dict[str, Any]]:
    """The Kubernetes objects. API keys come from a Secret of the name NAME-keys with the key `keys`, one a line."""
    labels = {"app": name}
    seconds = int(read_limits([], []).request_seconds)
    container = {
        "name": "server",
        "image": image,
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": PORT}, "periodSeconds": 5},
        "livenessProbe": {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 10},
        "startupProbe": {"httpGet": {"path": "/health", "port": PORT}, "failureThreshold": 60, "periodSeconds": 5},
        "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "8Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "keys", "mountPath": "/keys", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    pod = {
        "terminationGracePeriodSeconds": seconds + 10,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": "keys", "secret": {"secretName": f"{name}-keys"}}, {"name": "tmp", "emptyDir": {}}],
    }
    notes = {"prometheus.io/scrape": "true", "prometheus.io/port": str(PORT), "prometheus.io/path": "/metrics"}
    template = {"metadata": {"labels": labels, "annotations": notes}, "spec": pod}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    service = {"selector": labels, "ports": [{"port": 80, "targetPort": PORT}]}
    alone = {"podSelector": {"matchLabels": labels}, "policyTypes": ["Egress"], "egress": []}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels}, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": alone},
    ]
