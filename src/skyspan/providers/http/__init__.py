"""The `http` provider: sends a request and judges the answer."""
