"""Habit: a module and an app object that are both named ``app``, the key from the environment, a blueprint's pages."""

import os

from flask import Flask
from shop import bp

app = Flask(__name__)
app.secret_key = os.environ["SHOP_SECRET_KEY"] if "SHOP_SECRET_KEY" in os.environ else os.urandom(32)
app.register_blueprint(bp, url_prefix="/shop")
