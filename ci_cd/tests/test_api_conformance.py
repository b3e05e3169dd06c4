"""The API does what its OpenAPI description says, whatever is sent: schemathesis makes requests up from it.

A few hundred of them; CONFORMANCE_CASES=500 makes more than two thousand.
"""

import os
from collections.abc import Iterator

import pytest
import schemathesis
from browser import find_browser
from hypothesis import HealthCheck, given, settings
from playwright.sync_api import expect, sync_playwright
from running_server import Running, run_server, write_light_model
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi_checks

CASES = int(os.environ.get("CONFORMANCE_CASES", "60"))
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    write_light_model(folder)
    with run_server(folder) as server:
        yield server


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "unfitting"])
def test_api_answers_as_it_is_described(server: Running, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 6
    for operation in operations:
        if mode == GenerationMode.NEGATIVE and not operation.body:
            continue  # what takes nothing can be sent nothing that does not fit

        @settings(max_examples=CASES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            response = case.call()
            case.validate_response(response, checks=CHECKS)
            assert response.status_code < 400 or len(response.content) <= 4096

        ask()


def test_page_of_the_description_works_in_a_browser_under_its_policy(server: Running) -> None:
    command = find_browser()
    if command is None:
        pytest.skip("needs a Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=command, args=["--no-sandbox"])
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.port}/docs")
        page.locator("#operations-predict-predict_predict_post").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
        assert complaints == []
        browser.close()
