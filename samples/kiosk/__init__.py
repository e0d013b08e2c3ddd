"""The kiosk guide: its data, its training and its evaluation."""
