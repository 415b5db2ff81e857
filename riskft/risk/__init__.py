"""Phase 1: LEEP, transfer hardness and risk maps. Pure: tensors and files."""
