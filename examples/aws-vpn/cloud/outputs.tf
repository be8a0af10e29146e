output "vpn" {
  description = "The facts of both tunnels, their keys among them: what else a connection says changes by itself."
  value = {
    for name, value in aws_vpn_connection.lab : name => value
    if can(regex("^tunnel._(address|preshared_key|.gw_inside_address|bgp_asn|bgp_holdtime)$", name))
  }
  sensitive = true
}

output "vpc_cidr" {
  description = "Addresses of the VPC."
  value       = aws_vpc.this.cidr_block
}

output "app_ip" {
  description = "Private address of the application."
  value       = aws_instance.app.private_ip
}
