"""The settings of the API, read from the environment alone."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.api_keys import ApiKeys
from data_ingestion.handoff import REPOSITORY, PipelineError, Workspace


class Settings(BaseSettings):
    """What can be set. The environment variable is the field's name in capitals."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    pipeline_root: Path = Field(REPOSITORY, description="the root whose models/ is served")
    model_dir: Path | None = Field(None, description="the model folder, when it is not the root's models/")
    model_poll_s: float = Field(2.0, gt=0, description="how often the model folder is looked at, in seconds")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field((), description="comma separated; none means open")
    api_keys_file: Path | None = Field(None, description="a file of hashed keys; see app/api_keys.py")
    max_body_bytes: int = Field(64 * 2**20, ge=1, description="longer request bodies are refused")
    max_batch_rows: int = Field(100_000, ge=1, description="longer batches are refused")
    max_pending: int = Field(
        32, ge=1, description="single rows that wait in one worker under a load that lasts; 8 times as many in a burst"
    )
    max_batches: int = Field(2, ge=1, description="batches at once in one worker; 8 times as many wait")
    read_timeout_s: float = Field(10, gt=0, description="in which a request has to be there; more for long bodies")
    write_timeout_s: float = Field(30, gt=0, description="in which an answer, or 256 kB of it, have to be taken")
    shutdown_delay_s: float = Field(0, ge=0, description="from SIGTERM to the last new connection")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field((), description="whose pages may ask; none by default")
    metrics_dir: Path | None = Field(None, description="where workers share /metrics; None finds a place")
    docs: bool = Field(True, description="whether /docs and /openapi.json are there")
    access_log: bool = Field(True, description="a line of JSON for each request on stdout")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="of the API's own messages")

    @property
    def model_folder(self) -> Path:
        """The folder that holds the model to serve."""
        return (self.model_dir or Workspace(self.pipeline_root).models).absolute()  # a link in it may be set anew

    @cached_property
    def keys(self) -> ApiKeys:
        """The keys that are valid now.

        Raises
        ------
        PipelineError : their file cannot be read
        """
        return ApiKeys([key.get_secret_value() for key in self.api_keys], self.api_keys_file)

    @property
    def needs_key(self) -> bool:
        """Whether what is about the model needs a key."""
        return bool(self.api_keys) or self.api_keys_file is not None

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        keys = tuple(filter(None, map(str.strip, value.split(","))))
        if not keys:
            raise ValueError("it is set and holds no key, which would leave the API open")
        return keys

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        origins = tuple(filter(None, map(str.strip, value.split(","))))
        for origin in origins:
            parts = urlsplit(origin)
            if origin != "*" and (
                parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}"
            ):
                raise ValueError("expects origins such as https://shop.example, comma separated")
        return origins

    @field_validator("log_level", mode="before")
    @classmethod
    def _capitalise(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


def read_settings() -> Settings:
    """Return the settings that the environment gives.

    Raises
    ------
    PipelineError : a value is not allowed; the variable and the rule are named, a key never is
    """
    try:
        return Settings()
    except ValidationError as err:
        first = err.errors()[0]
        name, rule = str(first["loc"][0]).upper(), first["msg"][0].lower() + first["msg"][1:]
        raise PipelineError(f"environment variable {name}: {rule}. Correct it, or unset it for the default.") from err
