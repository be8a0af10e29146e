"""How a tool is driven; a folder per tool."""
