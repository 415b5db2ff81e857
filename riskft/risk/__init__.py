"""Phase 1: LEEP, transfer hardness, and the risk maps made of it. Pure: tensors and files."""
