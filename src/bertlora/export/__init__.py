"""What leaves bertlora: a run in formats that other programs open, each with a certificate that proves it anywhere.

Reading order:

- `certificate`: embedded reviews with the logits that a model gave for them; replayed on another machine
- `runners`: what runs an exported model
- `exported`: an exported folder that predicts
- `writing`: from a run to a checked folder; `formats` has the formats
"""
