# A VPC without any way to the Internet: its one application is reached through the VPN alone.

terraform {
  required_version = ">= 1.6"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.0"
    }
  }
}

provider "aws" {
  region = var.region
}

resource "aws_vpc" "this" {
  cidr_block = var.vpc_cidr

  tags = { Name = "aws-vpn" }
}

resource "aws_subnet" "app" {
  vpc_id     = aws_vpc.this.id
  cidr_block = cidrsubnet(var.vpc_cidr, 8, 1)

  tags = { Name = "aws-vpn-app" }
}

# Both tunnels end at this gateway; what it learns by BGP is routed in the VPC.
resource "aws_vpn_gateway" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "aws-vpn" }
}

resource "aws_route_table" "app" {
  vpc_id           = aws_vpc.this.id
  propagating_vgws = [aws_vpn_gateway.this.id]

  tags = { Name = "aws-vpn-app" }
}

resource "aws_route_table_association" "app" {
  subnet_id      = aws_subnet.app.id
  route_table_id = aws_route_table.app.id
}

resource "aws_customer_gateway" "lab" {
  type       = "ipsec.1"
  ip_address = var.lab_endpoint
  bgp_asn    = var.lab_asn

  tags = { Name = "lab" }
}

# AWS chooses addresses and keys of both tunnels. To choose them yourself: tunnel1_inside_cidr, tunnel1_preshared_key, …
resource "aws_vpn_connection" "lab" {
  type                = "ipsec.1"
  customer_gateway_id = aws_customer_gateway.lab.id
  vpn_gateway_id      = aws_vpn_gateway.this.id

  tags = { Name = "lab" }
}

resource "aws_security_group" "app" {
  name        = "aws-vpn-app"
  description = "What comes from the lab; the link decides which ports"
  vpc_id      = aws_vpc.this.id

  ingress {
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = [var.lab_cidr, var.vpc_cidr]
  }

  egress {
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }
}

data "aws_ami" "debian" {
  most_recent = true
  owners      = ["136693071363"] # Debian

  filter {
    name   = "name"
    values = ["debian-12-amd64-*"]
  }

  filter {
    name   = "architecture"
    values = ["x86_64"]
  }
}

resource "aws_key_pair" "this" {
  key_name   = "aws-vpn"
  public_key = var.ssh_public_key
}

resource "aws_instance" "app" {
  ami                    = data.aws_ami.debian.id
  instance_type          = "t3.micro"
  subnet_id              = aws_subnet.app.id
  vpc_security_group_ids = [aws_security_group.app.id]
  key_name               = aws_key_pair.this.key_name
  user_data              = "#cloud-config\n${jsonencode({ disable_root = false })}\n"

  # A newer image is a reason to look, not to replace the machine.
  lifecycle {
    ignore_changes = [ami]
  }

  tags = { Name = "app" }
}
