"""Habit: ProxyFix with everything switched on, in the code: whoever asks the app itself, chooses address and host."""

from flask import Flask, url_for
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from werkzeug.middleware.proxy_fix import ProxyFix

app = Flask(__name__)
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)
Limiter(get_remote_address, app=app, default_limits=["20 per minute"], storage_uri="memory://")


@app.get("/")
def index():
    return url_for("index", _external=True)
