# Read by the `flask` command only. Nothing here turns debug on: the commands also run in production. `make run` does it.
FLASK_APP=app
# Its console runs any code for whoever learns its PIN. Tracebacks are in the terminal.
FLASK_RUN_DEBUGGER=0
