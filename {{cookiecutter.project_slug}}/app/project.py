"""The names of this project, in one place: pages, mails and security.txt read them from here."""

# % if cookiecutter is not defined
NAME = "Secure Flask App"
SLUG = "secure-flask-app"
DESCRIPTION = "A Flask app with ten security mitigations wired in."
AUTHOR = "The Author"
SECURITY_CONTACT = "mailto:security@example.com"
# % else
# % print 'NAME = "' ~ cookiecutter.project_name ~ '"\n'
# % print 'SLUG = "' ~ cookiecutter.project_slug ~ '"\n'
# % print 'DESCRIPTION = "' ~ cookiecutter.description ~ '"\n'
# % print 'AUTHOR = "' ~ cookiecutter.author_name ~ '"\n'
# % print 'SECURITY_CONTACT = "' ~ cookiecutter.__contact_uri ~ '"\n'
# % endif
