"""``python -m riskft``."""

from riskft.cli import main

if __name__ == "__main__":
    main()
