"""The operations and the ticks as functions of AWS Lambda."""
