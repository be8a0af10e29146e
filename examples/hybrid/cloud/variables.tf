variable "name" {
  description = "Name of everything that is made here."
  type        = string
  default     = "hybrid"
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "vpc_cidr" {
  description = "Addresses of the VPC; they must not overlap those of the lab."
  type        = string

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr))
    error_message = "vpc_cidr is an IPv4 prefix, such as 10.20.0.0/16."
  }
}

variable "lab_cidrs" {
  description = "Addresses of the lab, reached through the gateway."
  type        = list(string)
}

variable "lab_endpoint" {
  description = "Public address of the lab's gateway: the only one that may talk WireGuard to ours."
  type        = string
}

variable "wireguard_port" {
  description = "UDP port of the link."
  type        = number
  default     = 51820
}

variable "admin_cidr" {
  description = "Where SSH to the gateway is allowed from."
  type        = string
}

variable "ssh_public_key" {
  description = "Key that may log in, as in authorized_keys."
  type        = string
}

variable "instance_type" {
  description = "Size of both instances."
  type        = string
  default     = "t3.micro"
}
