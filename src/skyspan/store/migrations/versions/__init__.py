"""The revisions, one file each; a published one never changes."""
