variable "region" {
  description = "AWS region."
  type        = string
}

variable "vpc_cidr" {
  description = "Addresses of the VPC; they must not overlap those of the lab."
  type        = string

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr))
    error_message = "vpc_cidr is an IPv4 prefix, such as 10.30.0.0/16."
  }
}

variable "lab_cidr" {
  description = "Addresses of the lab."
  type        = string
}

variable "lab_endpoint" {
  description = "Public address of the lab's gateway."
  type        = string
}

variable "lab_asn" {
  description = "Autonomous system of the lab's gateway, for BGP."
  type        = number
}

variable "ssh_public_key" {
  description = "Key that may log in, as in authorized_keys."
  type        = string
}
