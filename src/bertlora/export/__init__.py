"""What leaves bertlora: a run in formats that other programs open, each with a certificate that proves it anywhere.

Reading order:

- `certificate`: embedded reviews with the logits that a run gave for them; replayed on another machine
- `exported`: an exported folder that predicts; `runners`, `runtime`: what runs its model
- `origin`, `formats`, `writing`: from a run to a checked folder
- `onnx_graph`, `first_token`, `per_token`: the graphs
- `extras`: packages that only some formats need
"""
