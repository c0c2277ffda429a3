"""daprd, built from its Go module: state.redis and bindings.postgresql on the same engines."""

from pathlib import Path

from fixtures.engine_server import EngineServer

STATE = """\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: store
spec:
  type: state.redis
  version: v1
  metadata:
  - {{name: redisHost, value: "{host}:{port}"}}
  - {{name: redisPassword, value: "{password}"}}
  - {{name: keyPrefix, value: none}}
"""
BINDING = """\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: sql
spec:
  type: bindings.postgresql
  version: v1
  metadata:
  - {{name: connectionString, value: "{url}"}}
"""


def command(
    program: Path,
    folder: Path,
    ports: tuple[int, int, int, int],
    store: EngineServer,
    postgresql: EngineServer,
) -> list[str]:
    """The command line, its components written into `folder`; `ports[0]` serves HTTP."""
    http, grpc, internal, metrics = ports
    (folder / "state.yaml").write_text(
        STATE.format(host=store.host, port=store.port, password=store.admin_password)
    )
    (folder / "binding.yaml").write_text(BINDING.format(url=postgresql.url))
    return [
        str(program),
        "--app-id=bench",
        "--mode=standalone",
        f"--dapr-http-port={http}",
        f"--dapr-grpc-port={grpc}",
        f"--dapr-internal-grpc-port={internal}",
        f"--metrics-port={metrics}",
        f"--resources-path={folder}",
        "--log-level=error",
        "--enable-api-logging=false",
        "--disable-builtin-k8s-secret-store",
    ]
