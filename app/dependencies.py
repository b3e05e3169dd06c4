"""What the routes need: the model host, the settings, and a valid API key.

All of them are coroutines: FastAPI would run plain functions in worker threads, and /health must never wait for one.
"""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader

from app.errors import ApiError
from app.model_host import ModelHost
from app.settings import Settings

_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="a key that the server knows")


async def get_host(request: Request) -> ModelHost:
    """Return the app's model host."""
    host: ModelHost = request.app.state.host
    return host


async def get_settings(request: Request) -> Settings:
    """Return the app's settings."""
    settings: Settings = request.app.state.settings
    return settings


HostDep = Annotated[ModelHost, Depends(get_host)]
SettingsDep = Annotated[Settings, Depends(get_settings)]


async def check_api_key(settings: SettingsDep, key: Annotated[str | None, Security(_header)]) -> None:
    """Refuse a request without a valid key.

    Raises
    ------
    ApiError : 401
    """
    check_key(settings, key)


def check_key(settings: Settings, key: str | None) -> None:
    """Raise unless the key is valid now, in the same time for every key.

    Raises
    ------
    ApiError : 401
    """
    if settings.keys.find_name((key or "").encode("latin-1")) is None:
        raise ApiError(401, "Send a valid API key in the header X-API-Key.")
