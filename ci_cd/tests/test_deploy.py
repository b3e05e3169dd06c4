"""Image, compose file, Kubernetes manifests, dashboard and alerts: that they fit their tools, and the API."""

import json
import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from compiled_models import write_compiled_model
from conftest import REPOSITORY, clean_environment
from small_models import GOOD

from app.main import app
from app.metrics.counters import Metrics
from app.settings import Settings

DEPLOY = REPOSITORY / "ci_cd/deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
COMPOSE = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
OTHER_SETTINGS = {"WEB_CONCURRENCY", "PYTHONUNBUFFERED"}  # of uvicorn and Python


def find_tool(name):
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    return found or pytest.skip(f"{name} is not on this machine")


def run(*command, **options):
    words = list(map(str, command))
    return subprocess.run(words, capture_output=True, encoding="utf-8", timeout=60, check=False, **options)


def assert_clean(result):
    assert result.returncode == 0, result.stdout + result.stderr


def list_paths():
    return set(app.fastapi.openapi()["paths"])


# The image


def list_copied():
    """Return the sources that the Dockerfile copies, and where to, below the working folder."""
    lines = re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.MULTILINE)
    return [(words[:-1], words[-1]) for words in map(str.split, lines) if words[-1] != "/"]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The working folder of the image, as the Dockerfile and .dockerignore make it."""
    folder = tmp_path_factory.mktemp("image") / "srv"
    for sources, target in list_copied():
        for source in sources:
            if (REPOSITORY / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "score_file.py", "scoring*.py")
                shutil.copytree(REPOSITORY / source, folder / target, ignore=ignored)
            else:
                (folder / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / source, folder / target)
    return folder


USE = """
import sys
from fastapi.testclient import TestClient
from app.main import app
import json
with TestClient(app) as client:
    answers = [client.get(path) for path in ("/", "/ready", "/docs", "/openapi.json", "/metrics")]
    answers += [client.post(path, json=body) for path, body in json.loads(sys.argv[1])]
assert [answer.status_code for answer in answers] == [200] * 7, [answer.text[:500] for answer in answers]
ours = [name for name in sys.modules if name.partition(".")[0] in ("app", "data_ingestion", "models")]
print(*{sys.modules[name].__file__ for name in ours})
"""


def test_the_image_holds_all_that_the_api_imports_and_no_more(image, tmp_path):
    write_compiled_model(tmp_path)
    environment = clean_environment() | {"MODEL_DIR": str(tmp_path), "PYTHONPATH": str(image)}
    bodies = json.dumps([("/predict", GOOD), ("/predict/batch", [GOOD])])
    done = run(sys.executable, "-W", "ignore", "-c", USE, bodies, cwd=image, env=environment)
    assert_clean(done)
    used = {Path(name) for name in done.stdout.split("\n")[-2].split()}
    assert {path for path in used if not path.is_relative_to(image)} == set()
    outside = {path for path in image.rglob("*.py") if path.relative_to(image).parts[0] != "app"}
    assert outside - used == set()


def test_the_image_has_a_user_of_its_own_and_every_setting_exists():
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    names = set(re.findall(r"\b([A-Z][A-Z_]+)=", re.search(r"^ENV (.*)$", DOCKERFILE, re.MULTILINE)[1]))
    assert names - OTHER_SETTINGS <= set(map(str.upper, Settings.model_fields))
    assert re.search(r"http://127\.0\.0\.1:8000/(\w+)", DOCKERFILE)[1] == "health"


def test_hadolint_finds_nothing_in_the_dockerfile_of_mlflow():
    assert_clean(run(find_tool("hadolint"), DEPLOY / "mlflow/Dockerfile"))


# compose.yaml


def test_compose_file_fits_the_specification():
    assert_clean(
        run(find_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "compose.yaml", cwd=REPOSITORY)
    )


def test_compose_services_may_do_little_and_their_images_are_pinned():
    for name, service in COMPOSE["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name


def test_compose_settings_and_files_exist():
    api = COMPOSE["services"]["api"]
    assert set(api["environment"]) - OTHER_SETTINGS <= set(map(str.upper, Settings.model_fields))
    assert api["environment"]["METRICS_DIR"] in [mount.partition(":")[0] for mount in api["tmpfs"]]
    assert "/ready" in " ".join(api["healthcheck"]["test"])
    mounts = [mount for service in COMPOSE["services"].values() for mount in service.get("volumes", [])]
    files = [mount.partition(":")[0] for mount in mounts if mount.startswith("./")]
    assert files
    assert [name for name in files if not (REPOSITORY / name).is_file()] == []
    assert (REPOSITORY / COMPOSE["services"]["mlflow"]["build"]["dockerfile"]).is_file()


# Prometheus


@pytest.mark.parametrize(
    "command",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yaml"), ("test", "rules", "alerts-test.yaml")],
    ids=" ".join,
)
def test_promtool_accepts_configuration_and_alerts(command):
    assert_clean(run(find_tool("promtool"), *command, cwd=DEPLOY))


def list_rules():
    (group,) = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return group["rules"]


def list_panel_queries():
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [re.sub(r"\$\w+", lambda name: "5m" if "rate" in name[0] else "x", query) for query in queries]


def test_queries_use_only_metrics_that_the_api_shows():
    metrics = Metrics()
    metrics.set_model("1")
    metrics.observe("/predict", 200, 0.1)
    metrics.count_warnings({("a", "missing"): 1})
    shown = set(re.findall(r"^(\w+)", metrics.render()[0].decode(), re.MULTILINE))
    variables = [variable["query"]["query"] for variable in DASHBOARD["templating"]["list"][1:]]
    queries = [*list_panel_queries(), *variables, *(rule["expr"] for rule in list_rules())]
    used = {name for query in queries for name in re.findall(r"\bmodel_api_\w+", query)}
    assert len(used) > 8
    assert used - shown == set()


def test_queries_ask_for_paths_that_the_api_has():
    queries = [*list_panel_queries(), *(rule["expr"] for rule in list_rules())]
    patterns = {pattern for query in queries for pattern in re.findall(r'path=~?"(/[^"]*)"', query)}
    assert patterns
    assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, path) for path in list_paths())] == []


# Grafana


def test_promtool_parses_the_queries_of_the_dashboard(tmp_path):
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(list_panel_queries())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert_clean(run(find_tool("promtool"), "check", "rules", tmp_path / "rules.yaml"))


def test_dashboard_has_its_source_as_a_variable_and_panels_beside_each_other():
    source = DASHBOARD["templating"]["list"][0]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert all(part["datasource"]["uid"] == "${datasource}" for part in [panel, *panel["targets"]])
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


# Kubernetes


@pytest.fixture(scope="module")
def manifests():
    """The manifests by kind."""
    return {manifest["kind"]: manifest for manifest in (yaml.safe_load(path.read_text()) for path in KUBERNETES)}


@pytest.fixture
def pod(manifests):
    return manifests["Deployment"]["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    "path", [path for path in KUBERNETES if path.name != "kustomization.yaml"], ids=lambda p: p.name
)
def test_manifest_fits_the_schema_of_kubernetes(path):
    reason = "the schemas of Kubernetes are not on this machine (PyPI's kubernetes-validate)"
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason=reason)
    kubernetes_validate.validate(yaml.safe_load(path.read_text(encoding="utf-8")), "1.37", strict=True)


def test_kustomization_names_every_manifest_and_the_image(manifests, pod):
    kustomization = manifests["Kustomization"]
    assert sorted(kustomization["resources"]) == [path.name for path in KUBERNETES if path.name != "kustomization.yaml"]
    assert [image["name"] for image in kustomization["images"]] == [pod["containers"][0]["image"]]
    assert kustomization["namespace"] == manifests["Namespace"]["metadata"]["name"]


def test_selectors_find_the_pods(manifests):
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    monitor = yaml.safe_load((DEPLOY / "kubernetes/monitoring/service-monitor.yaml").read_text(encoding="utf-8"))
    assert manifests["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests["Service"]["spec"]["selector"] == labels
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert manifests["Service"]["metadata"]["labels"] == monitor["spec"]["selector"]["matchLabels"]
    assert manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "model-api"
    assert manifests["PersistentVolumeClaim"]["metadata"]["name"] == "model"


def test_pod_asks_what_the_api_answers(pod):
    (container,) = pod["containers"]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/health",
        "liveness": "/health",
        "readiness": "/ready",
    }
    assert {probe["path"] for probe in probes.values()} <= list_paths()
    assert {probe["port"] for probe in probes.values()} == {container["ports"][0]["name"]}
    settings = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert set(settings) - OTHER_SETTINGS <= set(map(str.upper, Settings.model_fields))
    mounted = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert settings["METRICS_DIR"] in mounted
    assert mounted[re.search(r"MODEL_DIR=(\S+)", DOCKERFILE)[1]]["readOnly"]
    graceful = int(re.search(r'"--timeout-graceful-shutdown", "(\d+)"', DOCKERFILE)[1])
    assert pod["terminationGracePeriodSeconds"] > float(settings["SHUTDOWN_DELAY_S"]) + graceful


def test_pod_keeps_to_the_restricted_standard(pod):
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod["automountServiceAccountToken"]
