"""What the API answers. What it takes is generated from the contract: see rows/row_schemas.py."""

from pydantic import BaseModel, ConfigDict, Field

from data_ingestion.schema import Task


class Answer(BaseModel):
    """What all answers share: they are read-only, and every one names the model version."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Prediction(Answer):
    """The answer for one row."""

    prediction: float | int | str = Field(description="a number, or the most probable class")
    model_version: str
    prediction_id: str = Field(description="32 hexadecimal digits, new with every answer")
    warnings: list[str] = Field(description="what the model has not seen in training, or had to fill in")
    probabilities: dict[str, float] | None = Field(None, description="by class; for a classification only")
    interval: list[float] | None = Field(  # not a tuple: few programs that read OpenAPI know `prefixItems`
        None,
        min_length=2,
        max_length=2,
        description="of a regression: holds the target as often as /model says under confidence",
    )
    prediction_set: list[int | str] | None = Field(
        None, description="of a classification: holds the class as often as /model says under confidence"
    )


class RowPrediction(Answer):
    """The answer for one row of a batch."""

    index: int = Field(description="the row's place in the request, from 0")
    prediction: float | int | str
    prediction_id: str
    warnings: list[str]
    probabilities: dict[str, float] | None = None
    interval: list[float] | None = Field(None, min_length=2, max_length=2)
    prediction_set: list[int | str] | None = None


class FieldError(Answer):
    """One value at fault. It names the field and the rule, and never repeats the value."""

    index: int | None = Field(None, description="the row's place in a batch, from 0")
    field: str | None = Field(None, description="the column; absent when the whole row is meant")
    rule: str = Field(description="a fixed name for programs, such as finite_number")
    message: str = Field(description="what is expected, for people")


class BatchPrediction(Answer):
    """The answers for a batch: good rows under predictions, bad rows under errors."""

    model_version: str
    predictions: list[RowPrediction]
    errors: list[FieldError] = Field(description="the first 20; a row without a prediction is at fault")
    errors_total: int


class ErrorAnswer(Answer):
    """The one form of every refusal."""

    code: str = Field(description="a fixed name for programs, such as invalid")
    message: str = Field(description="what is wrong and what to do, for people")
    errors: list[FieldError] = Field([], description="the first 20, fewer when they are long")
    errors_total: int = 0
    model_version: str | None = Field(None, description="null while no model is loaded")


class Status(Answer):
    """Whether the process is alive, or ready to predict."""

    status: str
    model_version: str | None = None


class ModelDescription(Answer):
    """The model that is being served, in words."""

    model_version: str
    task: Task
    target: str
    classes: list[int | str] | None = None
    estimator: str
    features: list[str] = Field(description="what a request holds")
    encoded_features: list[str] = Field(description="what the estimator gets")
    libraries: dict[str, str] = Field(description="the versions the model was made with")
    trained_from: dict[str, object] = Field(description="the model's inputs by sha256")
    trained_with: dict[str, object] = Field(description="the parameters of the training")
    compiled: bool = Field(description="whether numpy alone answers; else the pickle does, with scikit-learn")
    not_compiled_because: str | None = None
    confidence: float | None = Field(None, description="how often an interval or a prediction set is to hold the truth")
    refused: str | None = Field(None, description="why a newer model in the folder is not served")


class ContractDescription(Answer):
    """What a request holds, feature by feature."""

    model_version: str
    target: str
    task: Task
    missing: list[str] = Field(description="texts that mean missing, unless a feature lists its own")
    features: dict[str, dict[str, object]] = Field(description="by name, in the words of data/schema.yaml")
    ignored: list[str] = Field(description="columns that may be sent and do not matter")
