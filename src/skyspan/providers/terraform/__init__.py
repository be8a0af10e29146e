"""Drives OpenTofu and Terraform: a folder of configuration as one stage."""
