"""The page / in which people try the model: no build step, and no file from anywhere else."""

from pathlib import Path

from fastapi import Depends, FastAPI, Response
from fastapi.staticfiles import StaticFiles

from app.dependencies import check_api_key
from app.routes import page

STATIC = Path(__file__).resolve().parents[1] / "static"


class PageFiles(StaticFiles):
    """Files that a browser asks for again each time, by their ETag: of two versions it must never mix some."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        """Return the file, or that it has not changed."""
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response


def add_page(app: FastAPI) -> None:
    """Add the page with its files, what it shows of the model, and the report; where keys are set they guard both."""
    app.state.page_forms = {}
    guard = [Depends(check_api_key)] if app.state.settings.needs_key else []
    app.mount("/static", PageFiles(directory=STATIC))
    app.include_router(page.router)
    app.include_router(page.guarded, dependencies=guard)
