"""Run stages in forked children that meet a fault at a given write. test_crash_safety.py starts it.

It pays the imports once and computes nothing itself, so that no thread of a numeric library is lost in a fork. Each
line on stdin is a request, {"stage", "argv", "fault": null, "kill" or "error", "at", "limit", "log"}; each line on
stdout its answer, {"code", "stderr"}. The log gets one line per call of fsync and rename, in order.
"""

import errno
import gc
import importlib
import json
import os
import resource
import signal
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data_ingestion import handoff

STAGES = {
    "load": "data_ingestion.data_loader",
    "preprocess": "data_ingestion.data_preprocessor",
    "train": "models.train_model",
    "evaluate": "evaluation.evaluate_model",
}


LAZY = (
    "data_ingestion.encoder",
    "data_ingestion.encoding_report",
    "data_ingestion.inferring",
    "data_ingestion.load_report",
    "data_ingestion.load_writer",
    "data_ingestion.leaks",
    "data_ingestion.learnt",
    "data_ingestion.pickling",
    "data_ingestion.scan",
    "data_ingestion.splitter",
    "data_ingestion.stream_encoder",
    "data_ingestion.source_tables",
    "filelock",
    "models.outcome",
    "models.training_data",
    "joblib",
    "pandas",
    "pyarrow.csv",
    "pyarrow.dataset",
    "pyarrow.pandas_compat",
    "pyarrow.parquet",
    "data_ingestion.sealed_parquet",
)


def import_all() -> None:
    for name in (*LAZY, *STAGES.values()):
        importlib.import_module(name)


def shorten_work() -> None:
    """Writes are tested here: small models, short bootstraps and no pictures do as well, and code stays as it is."""
    names = ("models.candidates", "models.fold_work", "models.train_model", "evaluation.judging", "evaluation.report")
    candidates, fold_work, train_model, judging, report = map(importlib.import_module, names)
    describe_problem = candidates.describe_problem

    def describe_small(*args: object, **more: object) -> object:
        return describe_problem(*args, **more, max_iterations=10, learning_rate=0.3)

    def draw_nothing(model: object, X: object, y: object, metrics: dict) -> dict[str, bytes]:
        svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><text>{}</text></svg>'
        return {f"{name}.svg": svg.format(metrics["test"]["intervals"]).encode() for name in ("one", "two")}

    handoff.sha256_code = lambda folders, libraries=(): "0" * 64
    candidates.describe_problem = describe_small
    # How long a fit took is in metrics.json, and files are compared.
    fold_work.time = train_model.time = SimpleNamespace(perf_counter=lambda: 0.0, monotonic=lambda: 0.0)
    judging.explain_answers = lambda model, data, seed: {}
    report.draw_figures = draw_nothing


def install_fault(request: dict) -> None:
    """Count fsync and rename from now on, and let the one with number `at` fail."""
    log, calls = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 0

    def meet(what: str, code: int) -> None:
        nonlocal calls
        calls += 1
        os.write(log, f"{what}\n".encode())
        if request.get("at") == calls:
            if request["fault"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(code, os.strerror(code))

    def fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        meet(f"sync {kind}", errno.ENOSPC)
        real_fsync(descriptor)

    def replace(source: object, target: object) -> None:
        meet(f"rename {Path(str(target)).name}", errno.EACCES)
        real_replace(source, target)

    real_fsync, real_replace = os.fsync, os.replace
    os.fsync, os.replace = fsync, replace
    if request.get("limit") is not None:  # no file may grow beyond it: the kernel tears the write
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], request["limit"]))


def run_child(request: dict, errors: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(errors, 2)
    install_fault(request)
    main = sys.modules[STAGES[request["stage"]]].main
    code = handoff.run_stage(lambda: main(request["argv"]))
    sys.stderr.flush()
    os._exit(code)


def answer(request: dict) -> dict:
    errors, child_errors = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run_child(request, child_errors)
        except BaseException:  # noqa: BLE001
            sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(70)
    os.close(child_errors)
    with os.fdopen(errors, encoding="utf-8") as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "stderr": text}


if __name__ == "__main__":
    import_all()
    shorten_work()
    gc.freeze()  # or every child copies the memory that its garbage collector looks at
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
