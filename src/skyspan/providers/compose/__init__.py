"""Docker Compose projects: files of the composition's folder, or inline, on any Docker daemon."""
