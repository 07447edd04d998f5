"""The model: a base from transformers, an adapter in PEFT's format, and the engine that runs both.

Reading order:

1. From a name to a model: `fetch`, `base` (the files of a base model), `roles` (what its layers are called), `draws`
   (random numbers from a seed), `build` (the classifier, and LoRA in it).
2. From inputs to logits: `machine` (precision, memory, threads), `engine`.
3. A model with its adapter: `adapter_files` and `state` (what is saved), `adapted` (made, saved, loaded, asked).
4. Answers about it: `plan` (what training would do), `integrated` and `explain` (why a text got its label).
"""
