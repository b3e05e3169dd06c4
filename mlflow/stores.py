"""Where runs are recorded: a local database, or a server that may be away.

The library is imported only after `configure_client`, which makes it give up on a dead server within seconds. Without
that its client waits for minutes.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from data_ingestion.handoff import PipelineError, Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROBE_TIMEOUT_S = 3
UPLOAD_TIMEOUT_S = 120
LOCK_TIMEOUT_S = 120  # making the tables of a new database takes about ten seconds on a busy machine


def configure_client() -> None:
    """Load the library quiet, without telemetry and quick to give up.

    Raises
    ------
    PipelineError : the library is not installed; `import mlflow` then finds this folder, which is empty as a package
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(PROBE_TIMEOUT_S)
    import mlflow

    if not hasattr(mlflow, "__version__"):
        raise PipelineError("the library mlflow is not installed. Run: pip install -r requirements.txt")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"mlflow\..*")


def local_uri(workspace: Workspace) -> str:
    """Return the address of the root's own store."""
    return "sqlite:///" + (workspace.tracking / "mlflow.db").as_posix()


def is_server(uri: str) -> bool:
    """Return whether an address is reached over the network by HTTP."""
    return uri.startswith(("http://", "https://"))


def open_store(uri: str) -> "MlflowClient":
    """Return a client of a store that answers.

    A database is opened under a lock: two first runs that make its tables at once would leave it unusable for ever.

    Raises
    ------
    Exception : whatever the library raises when the store does not answer
    """
    import mlflow
    from mlflow import MlflowClient

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    with _lock_database(uri):
        client = MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
    if is_server(uri):  # it answered, so slow uploads deserve patience
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "3"
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(UPLOAD_TIMEOUT_S)
    return client


@contextmanager
def _lock_database(uri: str) -> Iterator[None]:
    """Hold the lock beside a SQLite file; other stores need none."""
    prefix = "sqlite:///"
    if not uri.startswith(prefix):
        yield
        return
    from filelock import FileLock

    path = Path(uri.removeprefix(prefix))
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_TIMEOUT_S):
        yield


def open_experiment(client: "MlflowClient", uri: str, name: str, workspace: Workspace) -> str:
    """Return the id of an experiment, made if need be; a local one keeps its artifacts beside the database."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            raise PipelineError(
                f'the experiment "{name}" was deleted in {uri}. Restore it, or name another: --experiment'
            )
        return str(found.experiment_id)
    location = None if is_server(uri) else (workspace.tracking / "artifacts").as_uri()
    try:
        return client.create_experiment(name, location, {"mlflow.experimentKind": "custom_model_development"})
    except MlflowException:  # another run made it a moment ago
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)
