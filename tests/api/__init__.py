"""The REST side over real HTTP: every call of DESIGN section 5, its codes, shapes and keys."""
