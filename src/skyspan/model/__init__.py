"""Pure data: what the words of the glossary mean. Standard library and pydantic only; no I/O, no clock."""
