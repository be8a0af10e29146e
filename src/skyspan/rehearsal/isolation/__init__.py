"""What the kernel keeps apart: namespaces from which nothing gets out, and control groups."""
