"""What makes and answers traffic on an end: knows nothing of Skyspan, and runs there as one text, by `python3 -`.

Only the part of the standard library that the smallest Python packages have, of Python 3.7 and later. What was measured
is printed line by line, `rtt 0.21` and the like, which `parse.py` reads; times are in milliseconds.
"""
