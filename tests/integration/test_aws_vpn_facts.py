"""The facts of a cloud-managed VPN: from Terraform's real AWS provider and a stand-in AWS to tunnels that carry."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from skyspan.model.change import Observation
from skyspan.model.secret import Secret
from skyspan.model.value import concealed
from skyspan.networks.awsvpn.provider import AwsVpnProvider
from skyspan.networks.awsvpn.spec import AwsVpnSpec
from skyspan.providers.terraform.provider import TerraformProvider
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.testing.cloud_vpn import FACTS, make_world
from skyspan.testing.provider_world import FoundTools, ProviderWorld
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
PATH = f"{ROOT / '.tools' / 'bin'}:{os.environ['PATH']}"

# Both are there already: the provider waits 10 s after it made each, whatever AWS says.
CONFIGURATION = """
terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}
provider "aws" {
  region = "eu-west-1"
}
import {
  to = aws_customer_gateway.main
  id = "CUSTOMER"
}
import {
  to = aws_vpn_connection.main
  id = "CONNECTION"
}
resource "aws_customer_gateway" "main" {
  bgp_asn    = 65000
  ip_address = "198.18.1.2"
  type       = "ipsec.1"
}
resource "aws_vpn_connection" "main" {
  vpn_gateway_id      = "GATEWAY"
  customer_gateway_id = aws_customer_gateway.main.id
  type                = "ipsec.1"
}
output "vpn" {
  value     = aws_vpn_connection.main
  sensitive = true
}
output "customer_gateway" {
  value = aws_customer_gateway.main.ip_address
}
"""

_TUNNEL = """
  <ipsec_tunnel>
    <customer_gateway>
      <tunnel_inside_address><ip_address>{cgw_inside_address}</ip_address></tunnel_inside_address>
    </customer_gateway>
    <vpn_gateway>
      <tunnel_outside_address><ip_address>{address}</ip_address></tunnel_outside_address>
      <tunnel_inside_address><ip_address>{vgw_inside_address}</ip_address></tunnel_inside_address>
      <bgp><asn>{bgp_asn}</asn><hold_time>{bgp_holdtime}</hold_time></bgp>
    </vpn_gateway>
    <ike><pre_shared_key>{preshared_key}</pre_shared_key></ike>
  </ipsec_tunnel>"""


def _described(_: object) -> str:
    """What AWS says of a connection, by the example in its documentation: the stand-in itself says the same addresses
    and the same key for both tunnels, whatever was asked for."""
    tunnels = "".join(
        _TUNNEL.format(
            **{name.removeprefix(start): value for name, value in FACTS.items() if name.startswith(start)},
        )
        for start in ("tunnel1_", "tunnel2_")
    )
    return f"<vpn_connection>{tunnels}</vpn_connection>"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from moto.ec2.models.vpn_connections import VPNConnection
    from moto.server import ThreadedMotoServer

    monkeypatch.setattr(VPNConnection, "customer_gateway_configuration", property(_described))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
async def here() -> AsyncIterator[LocalTransport]:
    transport = LocalTransport({"PATH": PATH, "AWS_EC2_METADATA_DISABLED": "true"})
    yield transport
    await transport.close()


def cloud_of(folder: Path, here: LocalTransport, endpoint: str) -> ProviderWorld:
    """A Terraform stage whose AWS provider is led to the stand-in."""
    config = Path(os.environ.get("SKYSPAN_TERRAFORM_CONFIG") or ROOT / ".tools" / "terraform.rc")
    provider = {
        "access_key": "test",
        "secret_key": "test",
        "max_retries": 1,
        "skip_credentials_validation": True,
        "skip_metadata_api_check": True,
        "skip_requesting_account_id": True,
        "skip_region_validation": True,
        "endpoints": {"ec2": endpoint, "sts": endpoint, "iam": endpoint},
    }
    folder.mkdir()
    override = folder / "world.json"
    override.write_text(json.dumps({"provider": {"aws": provider}}))
    tools = FoundTools(PATH, {"terraform_config": str(config), "terraform_override": str(override)})
    world = ProviderWorld(folder, {None: here}, tools=tools)
    (world.folder / "cloud").mkdir()
    (world.folder / "cloud" / "main.tf").write_text(configuration())
    return world


def configuration() -> str:
    """With what is there already."""
    from moto.backends import get_backend

    ec2: Any = get_backend("ec2")["123456789012"]["eu-west-1"]
    gateway = ec2.create_vpn_gateway()
    customer = ec2.create_customer_gateway("ipsec.1", ip_address="198.18.1.2", bgp_asn="65000")
    connection = ec2.create_vpn_connection("ipsec.1", customer.id, vpn_gateway_id=gateway.id)
    ids = {"CUSTOMER": customer.id, "CONNECTION": connection.id, "GATEWAY": gateway.id}
    return re.sub("|".join(ids), lambda found: str(ids[found[0]]), CONFIGURATION)


async def test_the_resource_as_terraform_hands_it_over_is_all_that_the_tunnels_need(
    tmp_path: Path, here: LocalTransport, aws: str
) -> None:
    cloud = cloud_of(tmp_path / "cloud", here, aws)
    terraform, source = TerraformProvider(), TerraformSpec(source="cloud")
    sites = await make_world(LocalTransport(ENV))
    try:
        change = await terraform.plan(source, Observation.absent(), cloud.reading())
        there = await terraform.apply(source, change, cloud.writing())
        vpn = there.outputs["vpn"]
        assert vpn.sensitive
        assert isinstance(vpn.value, dict)
        assert vpn.value["tunnel2_bgp_asn"] == "64512", "the provider hands over a text"
        # As the engine resolves `${{ stages.cloud.outputs.vpn }}`: every text and number of it is sealed.
        facts = concealed(vpn.value)
        settings = AwsVpnSpec.model_validate(
            {
                "host": "site-gw",
                "facts": facts,
                "id": there.outputs["customer_gateway"].value,
                "prefixes": ["10.1.0.0/24"],
                "remote": ["10.2.0.0/24"],
            }
        )
        assert settings.facts.tunnel1_preshared_key == Secret(FACTS["tunnel1_preshared_key"])
        site = sites.machines["site-gw"]
        before = await site.state()
        stage = ProviderWorld(tmp_path / "site", {"site-gw": site}, hosts=sites.hosts)
        provider = AwsVpnProvider()
        made = await provider.apply(
            settings, await provider.plan(settings, Observation.absent(), stage.reading()), stage.writing()
        )
        assert made.healthy
        assert await sites.machines["site"].pings("10.2.0.10")
        await provider.destroy(settings, stage.writing())
        assert await site.state() == before
    finally:
        await sites.close()
