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
  key_name   = var.name
  public_key = var.ssh_public_key
}

locals {
  # The same login on every machine of the composition: root, by key only.
  login = { disable_root = false }
}

resource "aws_instance" "gateway" {
  ami                    = data.aws_ami.debian.id
  instance_type          = var.instance_type
  subnet_id              = aws_subnet.public.id
  vpc_security_group_ids = [aws_security_group.gateway.id]
  key_name               = aws_key_pair.this.key_name

  # It forwards packets that are not its own.
  source_dest_check = false

  user_data = "#cloud-config\n${jsonencode(merge(local.login, {
    package_update = true
    packages       = ["bird2", "nftables", "wireguard-tools"]
  }))}\n"

  # A newer image is a reason to look, not to replace the machine.
  lifecycle {
    ignore_changes = [ami]
  }

  # Its packages come from the Internet.
  depends_on = [aws_route.internet, aws_route_table_association.public]

  tags = { Name = "cloud-gw" }
}

resource "aws_instance" "app" {
  ami                    = data.aws_ami.debian.id
  instance_type          = var.instance_type
  subnet_id              = aws_subnet.private.id
  vpc_security_group_ids = [aws_security_group.app.id]
  key_name               = aws_key_pair.this.key_name
  user_data              = "#cloud-config\n${jsonencode(local.login)}\n"

  lifecycle {
    ignore_changes = [ami]
  }

  tags = { Name = "app" }
}

resource "aws_eip" "gateway" {
  domain   = "vpc"
  instance = aws_instance.gateway.id

  tags = { Name = "${var.name}-gateway" }

  depends_on = [aws_internet_gateway.this]
}
