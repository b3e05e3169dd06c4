"""Record the evaluated model in MLflow: one run with everything, and a registered version, alias `challenger`.

The store is <root>/mlflow/mlflow.db unless MLFLOW_TRACKING_URI or --tracking-uri names another. When a server is away
the run is recorded locally and waits in <root>/mlflow/pending until --sync sends it.

    python mlflow/mlflow_setup.py
    python mlflow/mlflow_setup.py --tracking-uri http://127.0.0.1:5000 --sync
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from pydantic import Field

from data_ingestion import handoff as files
from data_ingestion.handoff import EXIT_UNAVAILABLE, PipelineError, Workspace
from data_ingestion.params import StageParams, parse_params

if TYPE_CHECKING:
    from run_logging import RunFiles


class TrackParams(StageParams):
    """Parameters of this stage."""

    block: ClassVar[str] = "track"

    tracking_uri: str | None = Field(None, description="MLflow store; none: MLFLOW_TRACKING_URI, else the local one")
    experiment: str | None = Field(None, description="experiment; none: the target's name")
    registered_model: str | None = Field(None, description="registered model; none: the target's name")
    sync: bool = Field(False, description="send the runs that wait for the server, then record this one")


def record_run(workspace: Workspace, run_files: "RunFiles", uri: str, params: TrackParams) -> str:
    """Record a run in one store and return a line that says where it is.

    Raises
    ------
    Exception : whatever the library raises when the store does not answer
    """
    import run_logging
    import stores

    client = stores.open_store(uri)
    name = clean_name(params.experiment or str(run_files.metrics["target"]))
    experiment = stores.open_experiment(client, uri, name, workspace)
    dead = run_logging.end_dead_runs(client, experiment, workspace.root)
    if dead:
        print(f"  marked {dead} unfinished runs of earlier processes as KILLED")
    registered = clean_name(params.registered_model or str(run_files.metrics["target"]))
    run_id = run_logging.log_run(client, experiment, run_files, registered, workspace.root)
    version = client.get_model_version_by_alias(registered, run_logging.ALIAS).version
    return f'run {run_id} in experiment "{name}", registered model "{registered}" version {version} (challenger)'


def clean_name(name: str) -> str:
    """Return a name without the characters that MLflow does not allow in one."""
    return "".join("_" if character in "/:.%\"'" else character for character in name).strip() or "model"


def list_pending(workspace: Workspace) -> list[Path]:
    """Return the copies of runs that wait for a server, oldest first."""
    folder = workspace.tracking / "pending"
    waiting = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    return sorted(waiting, key=lambda path: path.stat().st_mtime)


def send_pending(workspace: Workspace, uri: str, params: TrackParams) -> None:
    """Record every waiting run on the server, removing each copy when its run is complete there."""
    import run_logging

    for folder in list_pending(workspace):
        run_files = run_logging.read_run_files(Workspace(folder))
        print(f"  sent {record_run(workspace, run_files, uri, params)}")
        shutil.rmtree(folder)


def record_or_keep(workspace: Workspace, run_files: "RunFiles", uri: str, params: TrackParams) -> bool:
    """Record the run; when a server is away, record it locally and keep a copy to send later.

    Returns
    -------
    Whether the run is where it was meant to be
    """
    import run_logging
    import stores
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        if params.sync:
            send_pending(workspace, uri, params)
        print(f"recorded {record_run(workspace, run_files, uri, params)}")
        return True
    except (MlflowException, RequestException, OSError) as err:
        if not stores.is_server(uri):
            raise PipelineError(
                f"the MLflow store {uri} cannot be used: {_first_line(err)}.", EXIT_UNAVAILABLE
            ) from err
        if params.sync:
            raise PipelineError(
                f"the MLflow server {uri} does not answer: {_first_line(err)}. Nothing was lost: start it and repeat.",
                EXIT_UNAVAILABLE,
            ) from err
        print(f"warning: the MLflow server {uri} does not answer: {_first_line(err)}", file=sys.stderr)
        run_logging.copy_run_files(run_files, workspace.tracking / "pending")
        print(f"recorded {record_run(workspace, run_files, stores.local_uri(workspace), params)}")
        print(f"to send it when the server is back: python mlflow/mlflow_setup.py --tracking-uri {uri} --sync")
        return False


def _first_line(err: BaseException) -> str:
    return (str(err) or type(err).__name__).splitlines()[0][:160]


def is_recorded(marker: Path, state: Mapping[str, object], workspace: Workspace) -> bool:
    """Return whether the last run that was recorded is this one, in a store that still stands."""
    import stores

    if state["uri"] == stores.local_uri(workspace) and not (workspace.tracking / "mlflow.db").is_file():
        return False
    try:
        return files.read_json(marker, __file__) == state
    except PipelineError:  # not there, or damaged: it only saves work
        return False


def track(workspace: Workspace, params: TrackParams) -> None:
    """Read the outputs of the earlier stages and record them."""
    import stores

    uri = params.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or stores.local_uri(workspace)
    marker = workspace.tracking / "tracked.json"
    state = {
        "metrics": files.sha256_input(workspace.metrics, "evaluation/evaluate_model.py"),
        "uri": uri,
        "params": params.effective(),
        "code": files.sha256_code(["data_ingestion", "models", "mlflow"], ["mlflow-skinny"]),
    }
    if params.if_changed and not params.sync and is_recorded(marker, state, workspace):
        print("the MLflow run is up to date with models/metrics.json")
        return
    stores.configure_client()
    import run_logging

    if record_or_keep(workspace, run_logging.read_run_files(workspace), uri, params):
        with files.commit() as commit:
            commit.write_json(marker, state)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; see the module's description."""
    params = parse_params(TrackParams, argv, __doc__ or "")
    with files.open_workspace(params.root) as workspace:
        track(workspace, params)


if __name__ == "__main__":
    sys.exit(files.run_stage(main))
