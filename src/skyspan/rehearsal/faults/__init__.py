"""What can go wrong in a world: between its sites, and on its hosts."""
