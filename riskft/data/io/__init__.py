"""Volumes on disk: formats, geometry, and resampling to a scan's own grid."""
