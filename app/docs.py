"""The page /docs: Swagger UI over /openapi.json, from files that are installed, so that it needs no network."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from app.front.security_headers import allow_script
from app.openapi import describe_api

ASSETS = "/docs-assets"


def add_docs(app: FastAPI) -> None:
    """Add /docs, and make /openapi.json follow the model that is loaded.

    Where a key is needed, the rows are not described: names, categories and examples are for those with a key.
    """
    app.mount(ASSETS, StaticFiles(directory=find_assets()))

    def openapi() -> dict[str, object]:
        settings, served = app.state.settings, app.state.host.served
        return describe_api(app, None if settings.needs_key else served, settings.max_batch_rows)

    page = build_page(app.title)

    async def show_docs(request: Request) -> HTMLResponse:
        return page

    app.openapi = openapi  # type: ignore[method-assign]
    app.add_route("/docs", show_docs, include_in_schema=False)


def build_page(title: str) -> HTMLResponse:
    """Return the page, with the policy that lets its one script run and no other."""
    base = ASSETS.removeprefix("/")
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=title,
        swagger_js_url=f"{base}/swagger-ui-bundle.js",
        swagger_css_url=f"{base}/swagger-ui.css",
        swagger_favicon_url=f"{base}/favicon.png",
    )
    script = bytes(page.body).decode().rpartition("<script>")[2].partition("</script>")[0]
    page.headers["Content-Security-Policy"] = allow_script(script)
    return page


def find_assets() -> Path:
    """Return the folder of Swagger UI's files in the package fastapi-offline, which is not imported for that."""
    spec = find_spec("fastapi_offline")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("fastapi-offline is not installed. Run: pip install -r requirements-serve.txt")
    return Path(spec.submodule_search_locations[0]) / "static"
