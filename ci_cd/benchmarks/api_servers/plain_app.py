"""A FastAPI app as many write it: the model is opened at the start, a route answers a list of rows.

uvicorn plain_app:app
"""

from answering import Row, load_answers
from fastapi import FastAPI

app = FastAPI()
answer_rows = load_answers()


@app.post("/predict")
def predict(rows: list[Row]) -> dict[str, list[float]]:
    """Return the answers; FastAPI runs this in a thread."""
    return {"predictions": answer_rows(rows)}
