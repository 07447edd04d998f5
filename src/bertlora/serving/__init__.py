"""The server: many adapters on one base, behind HTTP.

Reading order, which is the way of a request:

- `app`, `contracts`: from HTTP to questions, and from answers to the shapes that each client knows
- `service`, `questions`: what the contracts call
- `reading`, `texts`: from questions to texts that wait
- `fleet`, `bases`, `watching`: the adapters by name
- `fair`, `pace`, `batcher`, `computing`: from texts to batches, on one thread that computes
- `server`: sockets, signals, and an end that answers what was accepted
"""
