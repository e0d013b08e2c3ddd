"""What the kiosk hears, sees and says: `speech`, `pictures`, and whole conversations of both (`duplex`)."""
