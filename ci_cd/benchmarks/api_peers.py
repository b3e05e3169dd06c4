"""The servers of bench_api.py: how each is started, what it is sent, and where its answers are."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from api_model import REPOSITORY, Row

SERVERS_FOLDER = Path(__file__).resolve().parent / "api_servers"
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Call:
    """A request for some rows.

    Parameters
    ----------
    path : where it is posted
    build_body : rows to a JSON value
    read_answers : a JSON value to one number for each row
    """

    path: str
    build_body: Callable[[Sequence[Row]], object]
    read_answers: Callable[..., list[float]]


@dataclass(frozen=True)
class Place:
    """Where a server runs.

    Parameters
    ----------
    python : of the server's environment
    folder : for files of all servers, an MLflow model among them
    ports : free ones, as many as any server wants
    """

    python: Path
    folder: Path
    ports: tuple[int, int, int]

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.ports[0]}"


@dataclass(frozen=True)
class Server:
    """A contestant.

    Parameters
    ----------
    key, name : on the command line and on the page
    kind : "bound", "ours", "peer", "batching" (a peer that gathers requests) or "inside" (one with our scorer inside)
    environment : the name of its lock file; None for ours
    build_command : how it is started
    single, many : how one row and how many are asked for; of the bound, answers mean nothing
    variables : of its environment, beside those of all
    """

    key: str
    name: str
    kind: str
    environment: str | None
    build_command: Callable[[Place], list[str]]
    single: Call
    many: Call
    variables: Mapping[str, str] = field(default_factory=dict)

    def build_environment(self, place: Place, model: Path) -> dict[str, str]:
        """Return the variables to start it with; `model` is the model folder."""
        steering = ("PIPELINE_", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "MODEL_", "API_KEYS", "MLFLOW_", "BENCH_")
        known = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
        paths = f"{place.python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        common = {"PATH": paths, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{SERVERS_FOLDER}"}
        common |= {"MODEL_DIR": str(model), "BENCH_MODEL": str(model), "OMP_NUM_THREADS": "1", "LOG_LEVEL": "WARNING"}
        common |= {"BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true"}
        return known | common | dict(self.variables)


def build_uvicorn(app: str) -> Callable[[Place], list[str]]:
    """Return how uvicorn is started with an app, without its access log."""
    flags = ["--host", HOST, "--no-access-log", "--log-level", "warning"]
    return lambda place: [str(place.python), "-m", "uvicorn", app, *flags, "--port", str(place.ports[0])]


def build_mlflow(model: str) -> Callable[[Place], list[str]]:
    """Return how MLflow is started with one of the models of save_mlflow.py."""

    def build(place: Place) -> list[str]:
        program, saved = place.python.with_name("mlflow"), place.folder / "mlflow" / model
        flags = ["--env-manager", "local", "--host", HOST, "--port", str(place.ports[0])]
        return [str(program), "models", "serve", "--model-uri", str(saved), *flags]

    return build


def build_bento(place: Place) -> list[str]:
    """Return how BentoML is started."""
    flags = ["--host", HOST, "--port", str(place.ports[0]), "--working-dir", str(SERVERS_FOLDER)]
    return [str(place.python.with_name("bentoml")), "serve", "bento_service:Sales", *flags]


def build_lit(place: Place) -> list[str]:
    """Return how LitServe is started."""
    return [str(place.python), str(SERVERS_FOLDER / "lit_server.py"), "--port", str(place.ports[0])]


def build_mlserver(implementation: str) -> Callable[[Place], list[str]]:
    """Return how MLServer is started with a runtime; its settings are written into the folder."""

    def build(place: Place) -> list[str]:
        folder = place.folder / f"mlserver_{implementation}"
        folder.mkdir(exist_ok=True)
        names = ("http_port", "grpc_port", "metrics_port")
        settings = dict(zip(names, place.ports, strict=True)) | {"host": HOST, "debug": False}
        pickle = str(place.folder / "root/models/saved_model.pkl")
        model = {"name": "sales", "implementation": implementation, "parameters": {"uri": pickle}}
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
        return [str(place.python.with_name("mlserver")), "start", str(folder)]

    return build


def build_split(rows: Sequence[Row]) -> object:
    """Return rows as MLflow's `dataframe_split`."""
    return {"dataframe_split": {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}}


def build_columns(rows: Sequence[Row]) -> object:
    """Return rows as columns in the V2 inference protocol."""
    kinds: dict[type, tuple[str, dict[str, object]]] = {
        float: ("FP64", {}),
        int: ("INT64", {}),
        str: ("BYTES", {"parameters": {"content_type": "str"}}),
    }
    inputs = []
    for name, value in rows[0].items():
        datatype, more = kinds[type(value)]
        data = [row[name] for row in rows]
        inputs.append({"name": name, "shape": [len(rows)], "datatype": datatype, "data": data, **more})
    return {"parameters": {"content_type": "pd"}, "inputs": inputs}


OURS_SINGLE = Call("/predict", lambda rows: rows[0], lambda answer: [answer["prediction"]])
OURS_MANY = Call("/predict/batch", list, lambda answer: [item["prediction"] for item in answer["predictions"]])
PLAIN = Call("/predict", list, lambda answer: answer["predictions"])
MLFLOW = Call("/invocations", build_split, lambda answer: answer["predictions"])
BENTO = Call("/predict", lambda rows: {"rows": list(rows)}, list)
LIT = Call("/predict", lambda rows: {"rows": list(rows)}, lambda answer: answer["predictions"])
MLSERVER = Call("/v2/models/sales/infer", build_columns, lambda answer: answer["outputs"][0]["data"])
SCORER = {"BENCH_SCORER": "1"}
BATCHING = {"BENCH_BATCHING": "1"}


def list_servers() -> list[Server]:
    """Return the contestants in the order of their turns."""
    plain, ours = build_uvicorn("plain_app:app"), build_uvicorn("app.main:app")
    own, foreign = build_mlserver("mlserver_sklearn.SKLearnModel"), build_mlserver("mlserver_runtime.ScorerInside")
    return [
        Server("bare", "bare uvicorn", "bound", None, build_uvicorn("bare:app"), OURS_SINGLE, OURS_MANY),
        Server("ours", "ours", "ours", None, ours, OURS_SINGLE, OURS_MANY),
        Server("ours-two", "ours, two workers", "ours", None, ours, OURS_SINGLE, OURS_MANY, {"WEB_CONCURRENCY": "2"}),
        Server("ours-pickle", "ours, from the pickle", "ours", None, ours, OURS_SINGLE, OURS_MANY),
        Server("mlflow", "MLflow", "peer", "api", build_mlflow("pipeline"), MLFLOW, MLFLOW),
        Server("bentoml", "BentoML", "peer", "api", build_bento, BENTO, BENTO),
        Server("mlserver", "MLServer", "peer", "mlserver", own, MLSERVER, MLSERVER),
        Server("litserve", "LitServe", "peer", "api", build_lit, LIT, LIT),
        Server("fastapi", "FastAPI", "peer", "api", plain, PLAIN, PLAIN),
        Server("bentoml-batching", "BentoML, its batching", "batching", "api", build_bento, BENTO, BENTO, BATCHING),
        Server("litserve-batching", "LitServe, its batching", "batching", "api", build_lit, LIT, LIT, BATCHING),
        Server("mlflow-scorer", "MLflow, our scorer", "inside", "api", build_mlflow("scorer"), MLFLOW, MLFLOW, SCORER),
        Server("bentoml-scorer", "BentoML, our scorer", "inside", "api", build_bento, BENTO, BENTO, SCORER),
        Server("mlserver-scorer", "MLServer, our scorer", "inside", "mlserver", foreign, MLSERVER, MLSERVER, SCORER),
        Server("litserve-scorer", "LitServe, our scorer", "inside", "api", build_lit, LIT, LIT, SCORER),
        Server("fastapi-scorer", "FastAPI, our scorer", "inside", "api", plain, PLAIN, PLAIN, SCORER),
    ]
