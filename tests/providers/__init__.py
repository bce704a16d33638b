"""What every provider of machines must do, and each of them against it."""
