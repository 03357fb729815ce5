"""Habit: an upload as in Flask's manual: an extension from a list, secure_filename, a folder beside the code."""

from pathlib import Path

from flask import Flask, redirect, request, send_from_directory, url_for
from werkzeug.utils import secure_filename

ALLOWED_EXTENSIONS = {"png", "txt"}
FOLDER = Path(__file__).parent / "uploads"
FOLDER.mkdir(exist_ok=True)
app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 16 * 1000 * 1000


@app.route("/", methods=["GET", "POST"])
def index():
    file = request.files["file"]
    name = secure_filename(file.filename)
    if name.rpartition(".")[2] in ALLOWED_EXTENSIONS:
        file.save(FOLDER / name)
    return redirect(url_for("download", name=name))


@app.get("/uploads/<name>")
def download(name):
    return send_from_directory(FOLDER, name)
