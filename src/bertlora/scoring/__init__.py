"""Labels files of any size, in bounded memory: parts that survive a kill, and bad rows set aside.

Reading order:

- `score`: the steps
- `sources`: opens what the user named; `parts`: cuts it into parts
- `engine`, or `ray_engine`: runs the model on them; `ahead`: one step works while the next one waits
- `part_folder`: keeps what is done; `plan`: what the parts belong to
- `writing`: gives the parts their columns, and joins them
- `progress`: rows done, speed, time left
"""

from bertlora.scoring.score import Scored, score

__all__ = ["Scored", "score"]
