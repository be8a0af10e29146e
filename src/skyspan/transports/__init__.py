"""Where commands run. The only importers of subprocess and SSH libraries."""
