# Read by the `flask` command only, also where that runs `db upgrade` or `uploads sweep` in production: debug changes
# nothing for these. Servers (wsgi.py) never see it.
FLASK_APP=app
FLASK_DEBUG=1
# Its console runs any code for whoever learns its PIN. Tracebacks are in the terminal.
FLASK_RUN_DEBUGGER=0
