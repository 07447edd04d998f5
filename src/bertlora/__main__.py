"""`python -m bertlora`, and `accelerate launch -m bertlora`."""

import sys

from bertlora.cli import main

sys.exit(main())
