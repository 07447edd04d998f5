"""What LoRA must beat on the same training rows: a linear probe on the frozen encoder, and TF-IDF without an encoder.

Reading order:

- `regression`: linear models, as strong as cross-validation says: softmax regression with calibrated logits for
  classes, ridge regression for numbers.
- `indicators`: ridge regression for many classes.
- `linear`: which of these it is.
- `probe`: the linear probe, its learning curve, and the head's start.
- `tfidf`: TF-IDF.
- `fitted`: both rivals of a run.
"""
