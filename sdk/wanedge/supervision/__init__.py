"""Supervision: going on after a stage failed, and telling a service manager that units are answered."""
