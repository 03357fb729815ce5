"""``make drift``: what has changed since this app was generated, here and in its template, and what that weakens."""
