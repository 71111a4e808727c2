"""A bundle as a Ray Serve application: as many replicas of the server as it takes, on as many machines.

    serve run assembler.deploy.ray_serve:app bundle=/models/digits replicas=4 limits=new_tokens=256,rows=16

`ray[serve]` is no dependency of this package; install it where the cluster runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assembler.bundle.manifest import read_manifest
from assembler.errors import AssemblerError
from assembler.serving.limits import read_keys, read_limits

KNOWN = ("bundle", "replicas", "limits", "keys", "providers", "gpus")


def app(args: dict[str, str]) -> Any:
    """The application, for `serve run` and for `import_path` in a config of Ray Serve.

    Args:
        args: `bundle`, a folder that every machine has at the same place; `replicas`; `limits`, as `--limit` of
            `assembler serve` takes them, separated by commas; `keys`, a file of API keys; `providers` of onnxruntime,
            separated by commas; `gpus`, how many a replica takes.

    Raises:
        AssemblerError: an argument is unknown, or there is no bundle.
    """
    from ray import serve

    unknown = sorted(set(args) - set(KNOWN))
    if unknown or "bundle" not in args:
        raise AssemblerError(
            f"{unknown[0] if unknown else 'bundle'}: give bundle=DIR and any of {', '.join(KNOWN[1:])}"
        )
    folder = Path(args["bundle"]).resolve()
    read_manifest(folder)
    limits = read_limits([x for x in args.get("limits", "").split(",") if x], [])
    providers = [x for x in args.get("providers", "").split(",") if x] or None
    keys = args.get("keys")

    def build() -> Any:
        """The server of one replica, made where the replica runs."""
        from assembler.serving.app import create_app
        from assembler.serving.model import Model

        return create_app(Model(folder, limits, providers), limits, read_keys(Path(keys)) if keys else None)

    deployment = serve.deployment(
        serve.ingress(build)(),
        name="bundle",
        num_replicas=int(args.get("replicas", 1)),
        max_ongoing_requests=limits.rows + limits.waiting,
        graceful_shutdown_timeout_s=limits.request_seconds,
        ray_actor_options={"num_gpus": float(args.get("gpus", 0))},
    )
    return deployment.bind()
