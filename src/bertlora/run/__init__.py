"""The run folder.

Reading order: `manifest` (what it says about its run), `card` (the model card), `folder` (writing), `loaded` (Run).
"""
