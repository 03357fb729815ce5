"""The names of this project, in one place: pages, mails and security.txt read them from here."""

NAME = "Secure Flask App"
SLUG = "secure-flask-app"
DESCRIPTION = "A Flask app with ten security mitigations wired in."
AUTHOR = "The Author"
SECURITY_CONTACT = "mailto:security@example.com"

# The version of the template that this app was generated from or last updated to. `cruft update` changes it.
TEMPLATE_VERSION = "0.2.0"
