"""The fast engine: packed rows through transformers' encoders, and weights as they are multiplied fastest."""
