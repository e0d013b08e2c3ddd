"""Pictures for the kiosk guide, drawn from seeds: the guide's own face, and what the kiosk's camera sees."""
