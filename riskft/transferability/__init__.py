"""How well a source's features and predictions tell the target classes apart: scores of voxel samples, all pure."""
