"""The page /, what it shows of the model, and the report of the evaluation."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse

from app.dependencies import HostDep, SettingsDep, check_key
from app.errors import ApiError
from app.page.form import build_form
from app.page.strongest import METRICS
from app.settings import Settings
from data_ingestion.handoff import Workspace

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
HEAD_BYTES = 2_000  # of a report; its title names the model

router = APIRouter(include_in_schema=False)
guarded = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
async def show_page(request: Request, settings: SettingsDep) -> HTMLResponse:
    """Show the page. It tells nothing of the model: its scripts ask for that, with a key where keys are set."""
    root = str(request.scope.get("root_path", "")).rstrip("/")
    base = f"{root}/" if root else ""
    return HTMLResponse(load_page().render(base=base, needs_key=settings.needs_key, has_docs=settings.docs))


@guarded.get("/page/form")
async def show_form(request: Request, host: HostDep, settings: SettingsDep) -> Response:
    """Return what the page shows of the model, made once for each version and its evaluation."""
    served, made = host.require(), request.app.state.page_forms
    has_report = find_report(settings, served.version) is not None
    key = (served.version, stamp_file(host.folder / METRICS), has_report)
    if key not in made:
        form = await run_sync(build_form, served, host.folder, settings.max_batch_rows, has_report)
        made.clear()
        made[key] = form.model_dump_json().encode()
    return Response(made[key], media_type="application/json")


@router.api_route("/report", methods=["GET", "POST"])
async def show_report(request: Request, host: HostDep, settings: SettingsDep) -> FileResponse:
    """Show the report of the model that is served. A link sends no header, so a form may post the key."""
    if settings.needs_key:
        check_key(settings, await read_key(request))
    path = find_report(settings, host.require().version)
    if path is None:
        raise ApiError(404, "There is no report of this model. Run: python evaluation/evaluate_model.py")
    return FileResponse(path, headers={"Content-Security-Policy": REPORT_POLICY, "Cache-Control": "no-store"})


@cache
def load_page() -> "Template":
    """Return the template; Jinja is imported with the first page, so that the first prediction need not wait for it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html")


async def read_key(request: Request) -> str | None:
    """Return the key that a request has in its header, or as the field `key` of a form."""
    header = request.headers.get("x-api-key")
    if header is not None or request.method != "POST":
        return header
    fields = parse_qs((await request.body()).decode("latin-1"))
    return fields.get("key", [""])[0].encode().decode("latin-1")  # as a header would have it


def find_report(settings: Settings, version: str) -> Path | None:
    """Return the root's report where it is of this model and the root's own model folder is served, else None."""
    workspace = Workspace(settings.pipeline_root)
    if settings.model_folder.resolve() != workspace.models.resolve():
        return None
    try:
        with workspace.report.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:  # a model need not have been evaluated here
        return None
    return workspace.report if f"model {version}</title>".encode() in head else None


def stamp_file(path: Path) -> int | None:
    """Return what changes when a file is replaced; None when there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
