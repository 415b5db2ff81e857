"""The report of ``riskft compare``: tables, figures and a viewer in one HTML file."""
