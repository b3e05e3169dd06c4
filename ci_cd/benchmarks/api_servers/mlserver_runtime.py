"""A runtime of MLServer with our scorer inside; with the pickle its own runtime for scikit-learn serves."""

from answering import load_answers
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, PandasCodec
from mlserver.types import InferenceRequest, InferenceResponse


class ScorerInside(MLModel):  # type: ignore[misc]
    """Answers a table with our scorer."""

    async def load(self) -> bool:
        """Open the model in the worker's process."""
        self.answer_rows = load_answers()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the answers."""
        import numpy as np

        table = self.decode_request(payload, default_codec=PandasCodec)
        answers = np.array(self.answer_rows(table.to_dict("records")))
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output(name="predict", payload=answers)]
        )
