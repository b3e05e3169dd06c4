"""What the routes need: the model host, the settings, and a valid API key.

All of them are coroutines: FastAPI would run plain functions in worker threads, and /health must never wait for one.
"""

import secrets
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader

from app.errors import ApiError
from app.model_host import ModelHost
from app.settings import Settings

_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="one of the keys in API_KEYS")


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
    """Raise unless the key is one of those in the settings, in the same time for every key.

    Raises
    ------
    ApiError : 401
    """
    given = (key or "").encode("latin-1")
    allowed = [known.get_secret_value().encode() for known in settings.api_keys]
    matches = [secrets.compare_digest(given, known) for known in allowed]  # all of them, whichever fits
    if not any(matches):
        raise ApiError(401, "Send a valid API key in the header X-API-Key.")
