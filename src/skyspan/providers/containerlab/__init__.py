"""Network labs of containers, by containerlab."""
