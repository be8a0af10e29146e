"""The seams: protocols, and the values that cross them. No implementation lives here."""
