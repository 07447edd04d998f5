"""The server: many adapters on one base, behind HTTP.

Reading order, which is the way of a request:

- `app`, `contracts`: from HTTP to questions, and from answers to the shapes that each client knows
- `service`: what the contracts call
- `fleet`: the adapters by name
- `batcher`: from questions to batches, on one thread that computes
- `server`: sockets, signals, and an end that answers what was accepted
"""
