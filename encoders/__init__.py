"""The encoders that milkit ships; each is found by its name through the registry."""
