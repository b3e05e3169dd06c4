"""bench_batches.py, as far as that needs no other servers and no quiet machine."""

import json
import sys
from collections.abc import Callable
from importlib import import_module

import pytest
from conftest import REPOSITORY

sys.path.append(str(REPOSITORY / "ci_cd/benchmarks"))
bench = import_module("bench_batches")
ROWS = [{"n": 1.5, "kind": "a"}, {"n": -1.0, "kind": 'b, "c"'}]


@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet", "arrow"])
def test_answers_are_found_in_every_form(form: str) -> None:
    encode: Callable[[object], bytes] = getattr(bench, f"encode_{form}")
    decode: Callable[[bytes], list[float]] = getattr(bench, f"decode_{form}")
    assert decode(encode([{"prediction": row["n"]} | row for row in ROWS])) == [1.5, -1.0]


def test_page_compares_with_the_fastest_peer() -> None:
    ours, mlflow = (bench.list_contests([key]) for key in ("ours", "mlflow"))
    assert [contest.name for contest in mlflow] == ["MLflow, JSON", "MLflow, CSV"]
    assert json.loads(mlflow[0].encode(ROWS))["dataframe_split"]["columns"] == ["n", "kind"]
    seconds = {ours[-1].name: 0.5, "MLflow, JSON": 4.0, "MLflow, CSV": 2.0}
    results = [(c, bench.Result([seconds[c.name]] * 3, 2 * 10**8, 10**6, 10**6, 0.1)) for c in (ours[-1], *mlflow)]
    page = bench.format_page(
        results, ["BentoML, JSON: out, no answer."], bench.parse_args(["--rows", "1000"]), "9 trees"
    )
    assert "| ours, Arrow | 2,000 | 4.00 | 8.00 | 200 MB | 1.0 MB | 1.0 MB |" in page
    assert "| MLflow, CSV | 500 | 1.00 | 2.00 |" in page
    assert "BentoML, JSON: out, no answer." in page
    assert "--rounds 3 --turns 3 --rows 1000" in page


def test_unknown_servers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.parse_args(["--servers", "ours,nobody"])
    assert "got nobody" in capsys.readouterr().err
