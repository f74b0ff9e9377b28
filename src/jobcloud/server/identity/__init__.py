"""How people and programs prove who they are: passwords, sessions of browsers, one-time links."""
