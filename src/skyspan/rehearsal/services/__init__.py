"""What runs on stand-ins from the start, besides sshd."""
