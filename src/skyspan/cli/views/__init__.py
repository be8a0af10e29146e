"""How results reach a person or a script. The only code of Skyspan that prints."""
