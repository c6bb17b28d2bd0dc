"""Alembic's folder: ``env`` runs, ``versions`` holds one file per change of schema."""
