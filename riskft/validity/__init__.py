"""Whether the risk map predicts the voxels of unseen cases that plain fine-tuning gets wrong."""
