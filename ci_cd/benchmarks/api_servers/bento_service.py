"""The model as a BentoML service; BENCH_BATCHING=1 lets it gather requests.

bentoml serve bento_service:Sales
"""

import os

import bentoml
from answering import Row, load_answers

BATCHING = {"batchable": True, "max_batch_size": 2000} if os.environ.get("BENCH_BATCHING") else {}


@bentoml.service(traffic={"timeout": 60})
class Sales:
    """Answers lists of rows."""

    def __init__(self) -> None:
        self.answer_rows = load_answers()

    @bentoml.api(**BATCHING)
    def predict(self, rows: list[Row]) -> list[float]:
        """Return the answers."""
        return self.answer_rows(rows)
