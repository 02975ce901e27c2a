"""What several tests, and the documentation, share."""
