# From outside: SSH for the administrator, WireGuard from the lab's gateway. Inside: the VPC, and what the link lets in.

resource "aws_security_group" "gateway" {
  name        = "${var.name}-gateway"
  description = "SSH, WireGuard, and what it forwards for the VPC"
  vpc_id      = aws_vpc.this.id

  ingress {
    description = "SSH"
    protocol    = "tcp"
    from_port   = 22
    to_port     = 22
    cidr_blocks = [var.admin_cidr]
  }

  ingress {
    description = "WireGuard"
    protocol    = "udp"
    from_port   = var.wireguard_port
    to_port     = var.wireguard_port
    cidr_blocks = ["${var.lab_endpoint}/32"]
  }

  ingress {
    description = "From the VPC, for the lab"
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = [var.vpc_cidr]
  }

  egress {
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_security_group" "app" {
  name        = "${var.name}-app"
  description = "The VPC, and from the lab what the link admits"
  vpc_id      = aws_vpc.this.id

  ingress {
    description = "From the VPC"
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = [var.vpc_cidr]
  }

  ingress {
    description = "From the lab; the link decides which ports"
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = var.lab_cidrs
  }

  egress {
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }
}
