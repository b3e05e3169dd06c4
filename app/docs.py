"""The page /docs: Swagger UI over /openapi.json, without the network where its files are installed."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from app.openapi import describe_api

ASSETS = "/docs-assets"


def add_docs(app: FastAPI) -> None:
    """Add /docs, and make /openapi.json follow the model that is loaded.

    Where API keys are set, the rows are not described: names, categories and examples are for those with a key.
    """
    folder = find_assets()
    if folder is not None:
        app.mount(ASSETS, StaticFiles(directory=folder))

    def openapi() -> dict[str, object]:
        settings, served = app.state.settings, app.state.host.served
        return describe_api(app, None if settings.api_keys else served, settings.max_batch_rows)

    async def show_docs(request: Request) -> HTMLResponse:
        if folder is None:
            return get_swagger_ui_html(openapi_url="openapi.json", title=app.title)
        base = ASSETS.removeprefix("/")
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url=f"{base}/swagger-ui-bundle.js",
            swagger_css_url=f"{base}/swagger-ui.css",
            swagger_favicon_url=f"{base}/favicon.png",
        )

    app.openapi = openapi  # type: ignore[method-assign]
    app.add_route("/docs", show_docs, include_in_schema=False)


def find_assets() -> Path | None:
    """Return the folder of Swagger UI's files when the package fastapi-offline is installed; it is not imported."""
    spec = find_spec("fastapi_offline")
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) / "static" if places else None
