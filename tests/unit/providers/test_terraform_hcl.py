"""What is found in configuration files without evaluating them."""

from __future__ import annotations

import json

import pytest

from skyspan.providers.terraform.hcl import Facts, Upward, scan


def needs(text: str, name: str = "main.tf") -> frozenset[str]:
    return scan(name, text).needs


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ('terraform {\n  backend "s3" {\n    bucket = "b"\n  }\n}', "s3"),
        ("terraform { cloud {} }", "cloud"),
        (
            'terraform {\n  required_providers {\n    a = { source = "x/a" }\n  }\n  backend "gcs" {}\n}',
            "gcs",
        ),
        ('# terraform { backend "s3" {} }', ""),
        ('/* terraform {\n backend "s3" {} } */', ""),
        ('// terraform {\nlocals {\n  t = "terraform { backend \\"s3\\" {} }"\n}', ""),
        ('locals {\n  t = <<EOT\nterraform {\n  backend "s3" {}\n}\nEOT\n}', ""),
        ('locals {\n  t = <<-EOT\n  }}}\n  EOT\n}\nterraform {\n  backend "azurerm" {}\n}', "azurerm"),
        ('locals {\n  t = "${join("}", ["{", "\\"${1}\\""])}"\n}\nterraform {\n  backend "http" {}\n}', "http"),
        ('locals {\n  t = "$${not} %%{this}"\n}\nterraform {\n  backend "pg" {}\n}', "pg"),
        ('resource "x_y" "backend" {\n  backend "s3" {}\n}', ""),
        ('module "m" {\n  source = "./m"\n  terraform = { backend = { s3 = {} } }\n}', ""),
        ("terraform {", ""),
        ('}}}"', ""),
        ("terraform\n{\n}\n", ""),
    ],
)
def test_a_backend_is_found_only_where_it_is_declared(text: str, backend: str) -> None:
    assert scan("main.tf", text).backend == backend


def test_json_configuration_says_the_same() -> None:
    document = {
        "terraform": [{"backend": {"s3": {"bucket": "b"}}}],
        "provider": {"aws": [{"region": "r"}, {"alias": "us"}]},
        "resource": {"aws_vpc": {"a": {}}},
        "module": {"m": {"source": "../modules/m"}},
        "variable": {"size": {"type": "number"}},
        "locals": {"f": "${path.module}/../files/x.json"},
    }
    facts = scan("main.tf.json", json.dumps(document))
    assert facts.backend == "s3"
    assert facts.providers == {"aws"}
    assert facts.configurations == {("aws", ""), ("aws", "us")}
    assert facts.variables == {"size"}
    assert facts.upward == {Upward("../modules/m", required=True), Upward("../modules/m"), Upward("../files/x.json")}


@pytest.mark.parametrize("text", ["", "[]", "{", '"text"', "null"])
def test_json_that_is_no_configuration_has_no_facts(text: str) -> None:
    assert scan("main.tf.json", text) == Facts()


def test_what_is_installed_depends_on_providers_and_modules_not_on_values() -> None:
    text = 'resource "aws_vpc" "a" {\n  cidr = "10.0.0.0/8"\n}\nmodule "m" {\n  source = "./m"\n}\n'
    assert needs(text.replace("10.0.0.0/8", "10.1.0.0/16").replace('"a"', '"b"')) == needs(text)
    assert needs(text.replace("aws_vpc", "aws_subnet")) == needs(text)
    assert needs(text.replace("aws_vpc", "google_x")) != needs(text)
    assert needs(text.replace("./m", "./n")) != needs(text)
    assert needs(text.replace('module "m"', 'module "n"')) != needs(text)
    assert needs(text + 'provider "random" {}\n') != needs(text)
    assert needs(text + 'terraform {\n  required_version = ">= 1"\n}\n') != needs(text)
    assert needs(text + 'data "external" "x" {}\n') != needs(text)


def test_every_way_to_use_a_provider_is_found() -> None:
    text = """
    provider "aws" { region = "a" }
    provider "aws" {
      alias = "us"
    }
    resource "google_compute_instance" "x" {
      provider = google-beta
    }
    data "http" "y" {}
    """
    facts = scan("main.tf", text)
    assert facts.providers == {"aws", "google", "google-beta", "http"}
    assert facts.configurations == {("aws", ""), ("aws", "us")}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('"../files/a.txt"', Upward("../files/a.txt")),
        ('file("${path.module}/../a.txt")', Upward("../a.txt")),
        ('file("${path.root}/../../b")', Upward("../../b", from_root=True)),
        ('templatefile("./../t/${var.x}.tpl", {})', Upward("./../t")),
        ('"../t/sub//dir"', Upward("../t/sub")),
        ('"a/../b"', None),
        ('"${var.x}/../b"', None),
        ('"..."', None),
    ],
)
def test_paths_that_leave_their_folder_are_found(expression: str, expected: Upward | None) -> None:
    found = scan("main.tf", f"locals {{\n  x = {expression}\n}}\n").upward
    assert found == ({expected} if expected else frozenset())


def test_declared_variables_are_found() -> None:
    text = 'variable "a" {}\nvariable b {\n  default = { variable = "c" }\n}\nmodule "m" {\n  variable = 1\n}\n'
    assert scan("main.tf", text).variables == {"a", "b"}


def test_a_modules_source_is_required_and_other_paths_are_not() -> None:
    text = 'module "m" {\n  source = "../m"\n  file   = "../f"\n}\n'
    assert scan("main.tf", text).upward == {Upward("../m", required=True), Upward("../f")}


def test_the_tools_own_state_encryption_is_seen() -> None:
    assert scan("main.tf", "terraform {\n  encryption {\n  }\n}").encrypted
