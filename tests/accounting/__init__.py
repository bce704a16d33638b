"""What was used, and how much is allowed: from the bytes of a call to the rows of SQL."""
