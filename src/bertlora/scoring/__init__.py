"""Labels files of any size, in bounded memory: parts that survive a kill, and bad rows set aside.

A reader of this room meets the files in this order: `score.py` tells the story; `sources.py` opens what the user
named; `parts.py` cuts it into parts; `engine.py` (or `ray_engine.py`) runs the model on them; `part_folder.py` keeps
what is done; `writing.py` gives the parts their columns and joins them.
"""

from bertlora.scoring.score import Scored, score

__all__ = ["Scored", "score"]
