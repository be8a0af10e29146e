"""The terraform provider under the provider suite, with the real tools and real effects of their provisioners."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from skyspan.model.secret import Secret
from skyspan.providers.terraform.provider import TerraformProvider
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.provider_world import FoundTools, ProviderWorld
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration

TOOLS = Path(__file__).resolve().parents[2] / ".tools" / "bin"
PATH = f"{TOOLS}:{os.environ['PATH']}"

# The thing is a file: made by a provisioner, removed by a destroy-time one. `at` is in the input, as destroy-time
# provisioners may only refer to their own object.
CONFIGURATION = """
variable "at" {
  type = string
}
variable "text" {
  type = string
}
variable "note" {
  type    = string
  default = ""
}
variable "seconds" {
  type    = number
  default = 0
}
resource "terraform_data" "thing" {
  input            = { at = var.at }
  triggers_replace = [var.text]
  provisioner "local-exec" {
    command = "set -e; sleep ${var.seconds}; printf %s \\"$TEXT\\" > ${self.input.at}; echo wrote $TEXT"
    environment = { TEXT = var.text }
  }
  provisioner "local-exec" {
    when    = destroy
    command = "rm -f ${self.input.at}"
  }
}
resource "terraform_data" "note" {
  input = var.note
}
output "at" {
  value = terraform_data.thing.output.at
}
output "note" {
  value = terraform_data.note.output
}
output "shape" {
  value = { list = [1, 2.5, true, null], text = "ü" }
}
"""

SECRET = Secret('pass "word"/+=&')


@pytest.fixture
async def here() -> AsyncIterator[LocalTransport]:
    transport = LocalTransport({"PATH": PATH, "LC_ALL": "C.UTF-8"})
    yield transport
    await transport.close()


def case_of(folder: Path, here: LocalTransport, tool: str) -> ProviderCase:
    tools = FoundTools(PATH)
    if tools.find(tool) is None:
        pytest.fail(f"{tool} is missing: run `make tools`")
    world = ProviderWorld(folder, {None: here}, tools=tools)
    (world.folder / "cloud").mkdir()
    (world.folder / "cloud" / "main.tf").write_text(CONFIGURATION)
    real = folder / "real"
    real.mkdir()

    def spec(**variables: Any) -> TerraformSpec:
        settings = {"source": "cloud", "tool": tool, "variables": {"at": str(real / "thing"), **variables}}
        return TerraformSpec.model_validate(settings)

    return ProviderCase(
        provider=TerraformProvider(),
        spec=spec(text="one"),
        changed=spec(text="two"),
        secret_spec=spec(text=SECRET, note=SECRET),
        failing_spec=spec(text=SECRET, at="/nowhere/at/all"),
        slow_spec=spec(text="one", seconds=60),
        world=world,
        snapshot=lambda: {path.name: path.read_text() for path in sorted(real.iterdir())},
    )


class TestOpenTofu(ProviderConformance):
    @pytest.fixture
    def case(self, tmp_path: Path, here: LocalTransport) -> ProviderCase:
        return case_of(tmp_path, here, "tofu")


class TestTerraform(ProviderConformance):
    @pytest.fixture
    def case(self, tmp_path: Path, here: LocalTransport) -> ProviderCase:
        return case_of(tmp_path, here, "terraform")
