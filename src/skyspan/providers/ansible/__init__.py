"""Playbooks over the composition's hosts, by ansible-playbook."""
