"""Files that compute in integers."""
