"""The model behind a LitServer; BENCH_BATCHING=1 lets it gather requests.

python lit_server.py --port 8000
"""

import argparse
import os

import litserve
from answering import Row, load_answers

BATCH_SIZE = 16  # as many as bench_api.py has connections: none waits for the timeout
BATCH_TIMEOUT_S = 0.005


class Sales(litserve.LitAPI):
    """Answers lists of rows."""

    def setup(self, device: str) -> None:
        """Open the model in the worker's process."""
        self.answer_rows = load_answers()

    def decode_request(self, request: dict[str, list[Row]]) -> list[Row]:
        """Return the rows of a request."""
        return request["rows"]

    def predict(self, rows: list[Row]) -> list[float]:
        """Return the answers."""
        return self.answer_rows(rows)

    def encode_response(self, output: list[float]) -> dict[str, list[float]]:
        """Return what is sent."""
        return {"predictions": output}


class BatchedSales(Sales):
    """Gathers the rows of some requests and answers them at once."""

    def predict(self, rows: list[list[Row]]) -> list[list[float]]:  # type: ignore[override]
        """Return the answers of each request."""
        answers = iter(self.answer_rows([row for some in rows for row in some]))
        return [[next(answers) for _ in some] for some in rows]

    def batch(self, inputs: list[list[Row]]) -> list[list[Row]]:
        """Keep the requests apart."""
        return inputs

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        """Return the answers as they are, a list for each request."""
        return output


def main() -> None:
    """Serve until somebody ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="(default: %(default)s)")
    args = parser.parse_args()
    if os.environ.get("BENCH_BATCHING"):
        api: Sales = BatchedSales(max_batch_size=BATCH_SIZE, batch_timeout=BATCH_TIMEOUT_S)
    else:
        api = Sales()
    server = litserve.LitServer(api, accelerator="cpu", timeout=60)
    server.run(host="127.0.0.1", port=args.port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
