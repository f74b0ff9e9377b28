"""Who may do what: verbs, roles, and the decision. Pure."""
