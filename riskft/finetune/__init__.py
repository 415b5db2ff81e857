"""Phase 2: the map-weighted loss, the module that trains with it, and its metrics."""
