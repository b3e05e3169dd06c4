"""What is being served: the model, and the contract of its requests."""

from fastapi import APIRouter

from app.dependencies import HostDep
from app.openapi import describe_errors
from app.rows.row_schemas import list_ignored
from app.schemas import ContractDescription, ModelDescription

router = APIRouter(tags=["model"], responses=describe_errors(503))


@router.get("/model", response_model_exclude_none=True)
async def model(host: HostDep) -> ModelDescription:
    """Describe the model: what it predicts, what it is made of, and from which data."""
    served = host.require()
    manifest = served.model.manifest
    shared = manifest.model_dump(include={"model_version", "task", "target", "classes", "estimator", "libraries"})
    return ModelDescription(
        **shared,
        features=list(served.contract.features),
        encoded_features=manifest.feature_names,
        trained_from=_get_mapping(manifest.lineage, "inputs"),
        trained_with=_get_mapping(manifest.lineage, "params"),
        compiled=manifest.scorer.compiled,
        not_compiled_because=manifest.scorer.reason,
        confidence=None if manifest.uncertainty is None else manifest.uncertainty.confidence,
        refused=host.refused,
    )


@router.get("/schema", response_model_exclude_none=True)
async def schema(host: HostDep) -> ContractDescription:
    """Describe what a request holds, feature by feature, with an example of each."""
    served = host.require()
    contract = served.contract
    return ContractDescription(
        model_version=served.version,
        target=contract.target,
        task=contract.task,
        missing=contract.missing,
        features={name: column.to_dict() for name, column in contract.features.items()},
        ignored=list_ignored(contract),
    )


def _get_mapping(lineage: dict[str, object], key: str) -> dict[str, object]:
    value = lineage.get(key)
    return value if isinstance(value, dict) else {}
