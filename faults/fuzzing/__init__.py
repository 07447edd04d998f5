"""What `faults/fuzz.py` and the tests share: the readers with small valid inputs, and what feeds them."""
