"""The shapes of bodies, one module for each contract. They are what /openapi.json says."""
