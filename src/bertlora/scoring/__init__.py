"""Labels files of any size, in bounded memory: parts that survive a kill, and bad rows set aside.

`score.py` has the steps. `sources.py` opens what the user named, and `parts.py` cuts it into parts. `engine.py` or
`ray_engine.py` runs the model on them. `part_folder.py` keeps what is done; `writing.py` writes parts and joins them.
"""

from bertlora.scoring.score import Scored, score

__all__ = ["Scored", "score"]
