"""The queue's rules, held against a real Valkey with a clock that the test owns."""
