"""What LoRA must beat on the same training rows: a linear probe on the frozen encoder, and TF-IDF without an encoder.

Reading order:

- `regression`: softmax regression, as strong as cross-validation says, with calibrated logits.
- `ridge`: ridge regression, for numbers.
- `probe`: the linear probe, its learning curve, and the head's start.
- `tfidf`: TF-IDF.
- `fitted`: both rivals of a run.
"""
