"""A shop folder's log: checked tables -> sessions, events, histories, splits."""
