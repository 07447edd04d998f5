"""A client of the server, which imports no torch.

- `client`: questions in Python, answers as `Run.predict` gives them
- `connection`: requests that are sent again while the server is busy or gone
"""
