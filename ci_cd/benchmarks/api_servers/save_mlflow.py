"""Save the model as MLflow models: `pipeline` as its scikit-learn flavor does, `scorer` with ours inside.

Reads the model folder that BENCH_MODEL names, writes two folders into --folder.

python save_mlflow.py --folder FOLDER
"""

import argparse
import os
from pathlib import Path

import joblib
import mlflow.pyfunc
import mlflow.sklearn
import pandas as pd


class ScorerInside(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers a table with our scorer."""

    def load_context(self, context: object) -> None:
        """Open the model where it is served."""
        os.environ["BENCH_SCORER"] = "1"
        from answering import load_answers

        self.answer_rows = load_answers()

    def predict(self, context: object, model_input: pd.DataFrame, params: object = None) -> list[float]:
        """Return the answers."""
        return self.answer_rows(model_input.to_dict("records"))


def main() -> None:
    """Save both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the MLflow models")
    args = parser.parse_args()
    pipeline = joblib.load(Path(os.environ["BENCH_MODEL"]) / "saved_model.pkl")
    needs = {"pip_requirements": ["scikit-learn", "pandas"]}
    mlflow.sklearn.save_model(pipeline, args.folder / "pipeline", serialization_format="cloudpickle", **needs)
    mlflow.pyfunc.save_model(args.folder / "scorer", python_model=ScorerInside(), **needs)


if __name__ == "__main__":
    main()
