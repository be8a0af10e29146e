"""The budgets of the design, measured beside other tools: `python -m bench` (`make bench`)."""
