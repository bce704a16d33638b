"""``vestibule load-test``: its people, what it sees, what it says of it."""
