"""The stand-in machines: their files, their first process, the tools they see, what runs on them."""
