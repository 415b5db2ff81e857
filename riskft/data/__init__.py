"""riskft."""
