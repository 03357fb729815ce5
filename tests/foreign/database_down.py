"""Habit: the database is asked when the module is imported; here it is down."""

from flask import Flask
from sqlalchemy import create_engine

app = Flask(__name__)
app.logger.error("connecting")
create_engine("sqlite:////there/is/no/such/folder/app.db").connect()
