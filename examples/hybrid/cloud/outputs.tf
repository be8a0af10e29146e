output "gateway_ip" {
  description = "Public address of the gateway."
  value       = aws_eip.gateway.public_ip
}

output "vpc_cidr" {
  description = "Addresses of the VPC."
  value       = aws_vpc.this.cidr_block
}

output "app_ip" {
  description = "Private address of the application."
  value       = aws_instance.app.private_ip
}
