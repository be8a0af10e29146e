"""How Terraform hands the facts over and a composition takes them: the example of the reference page."""

from __future__ import annotations

EXAMPLE = """
In the Terraform of the cloud's stage, hand over what the `aws_vpn_connection` says of its tunnels. The keys are in it,
so Terraform wants the output to be sensitive. The whole resource would do too, but its telemetry changes by itself, and
the next `skyspan up` would find a change:

```hcl
resource "aws_customer_gateway" "lab" {
  type       = "ipsec.1"
  ip_address = var.lab_gateway_ip   # the host's public address
  bgp_asn    = 65000
}
resource "aws_vpn_connection" "lab" {
  type                = "ipsec.1"
  customer_gateway_id = aws_customer_gateway.lab.id
  vpn_gateway_id      = aws_vpn_gateway.main.id
}
resource "aws_vpn_gateway_route_propagation" "lab" {
  vpn_gateway_id = aws_vpn_gateway.main.id
  route_table_id = aws_route_table.main.id
}
output "vpn" {
  value = {
    for name, value in aws_vpn_connection.lab : name => value
    if can(regex("^tunnel._(address|preshared_key|.gw_inside_address|bgp_asn|bgp_holdtime)$", name))
  }
  sensitive = true
}
output "vpc_cidr" {
  value = aws_vpc.main.cidr_block
}
```

In the composition:

```yaml
skyspan: 1
name: office
inputs:
  lab_gateway_ip: {type: ip}
  lab_cidr: {type: cidr, default: 192.168.77.0/24}
hosts:
  lab-gw: {address: "${{ inputs.lab_gateway_ip }}", user: root, key: "${{ secrets.ssh_key }}"}
stages:
  cloud:
    uses: terraform
    with: {source: ./cloud, variables: {lab_gateway_ip: "${{ inputs.lab_gateway_ip }}"}}
    outputs:
      vpn: {type: map<any>, sensitive: true}
      vpc_cidr: {type: cidr}
  vpn:
    uses: aws-vpn
    with:
      host: lab-gw
      facts: "${{ stages.cloud.outputs.vpn }}"
      prefixes: ["${{ inputs.lab_cidr }}"]
      remote: ["${{ stages.cloud.outputs.vpc_cidr }}"]
      bgp: {asn: 65000}
      allow: [icmp, tcp/22]
```

Without BGP, set `static_routes_only = true`, add an `aws_vpn_connection_route` for each of `prefixes`, and leave out
`bgp`. AWS makes the keys unless the connection names them; whoever rotates one runs `skyspan up`, which reads the facts
again. As the output is sensitive as a whole, the tunnels' addresses are masked in logs, too.

**What carries the packets.** With `bgp` on a kernel that has XFRM interfaces, each tunnel has its own, and routes
follow BGP. Everywhere else both tunnels are up at once but share one interface or none: traffic takes the tunnel whose
keys are newest, none can be preferred, and when one dies it goes on through the other as soon as the host notices:
after `dpd` and 13 s by itself, after about 3 s while `skyspan watch` looks on, which gives it to the other at once.
What comes back moves when AWS notices, in its own time. The outputs `plane` and `limit` say which it is.
"""
