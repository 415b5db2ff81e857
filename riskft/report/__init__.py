"""What a run shows: risk heatmaps, figures and tables of cases."""
