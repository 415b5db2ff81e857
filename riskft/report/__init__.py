"""What a run shows: risk heatmaps, figures, tables of cases, and paired comparison."""
