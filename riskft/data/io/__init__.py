"""Volumes on disk: formats, geometry, and the way back to a scan's own grid."""
