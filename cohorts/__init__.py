"""The cohorts that milkit reads; each is found by its name through the registry."""
