"""Settings of every command: what they mean, and what they are where nobody says otherwise."""
