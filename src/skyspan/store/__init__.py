"""What is remembered. The only importer of SQLAlchemy."""
