"""What clients speak: one module for each contract, with a router that `app` includes."""
