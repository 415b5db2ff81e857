"""Whether the risk map finds the voxels of unseen cases that plain fine-tuning gets wrong."""
