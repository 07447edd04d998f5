"""The run folder. Reading order: `manifest` (run.json), `card` (the model card), `folder` (writing), `loaded` (Run)."""
