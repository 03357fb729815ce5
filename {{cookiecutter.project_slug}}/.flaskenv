# Read by the `flask` command only, which is for development. Servers (wsgi.py) never see it.
FLASK_APP=app
FLASK_DEBUG=1
