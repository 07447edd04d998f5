"""A client of the server: questions in Python, answers as `Run.predict` gives them."""
