"""One file for each command; heavy imports happen when it runs."""
