"""What a run's folder holds, on one page."""
