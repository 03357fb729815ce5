"""A NAIVE APP, MADE TO BE ATTACKED. NEVER PUT IT ON A NETWORK, NEVER COPY FROM IT.

It does what the generated app does, the way a beginner's tutorial does it: Flask, the standard library, and nothing
that defends. Every hole is a habit that tutorials teach, and names the threats that it opens. ``tests/test_naive.py``
attacks all 34 of them and succeeds: the attacks that the generated app withstands are real ones. There is no
``app.run()`` here, on purpose: ``__main__.py`` serves it on loopback, behind a guard and with a banner.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import sqlite3
import tempfile
import traceback
import urllib.request
from datetime import timedelta
from pathlib import Path
from xml.dom import minidom
from xml.sax import handler, make_parser

from flask import Flask, Response, g, redirect, render_template, render_template_string, request, session
from flask.typing import ResponseReturnValue
from werkzeug.middleware.proxy_fix import ProxyFix

TABLES = """
    CREATE TABLE IF NOT EXISTS users (email TEXT PRIMARY KEY, password TEXT);
    CREATE TABLE IF NOT EXISTS visitors (id INTEGER PRIMARY KEY, email TEXT);
    CREATE TABLE IF NOT EXISTS files (name TEXT, title TEXT, owner TEXT);
"""
# Its script shows a message that comes with a link, as in /login#Welcome: what the link's sender wrote runs (3.T1).
LAYOUT = """<!DOCTYPE html>
<title>Naive</title>
<nav>
  <a href="/">Home</a> <a href="/uploads">Uploads</a> <a href="/account">Account</a> <a href="/logout">Sign out</a>
</nav>
<p id="message"></p>
<main>BODY</main>
<script>document.getElementById("message").innerHTML = decodeURIComponent(location.hash.slice(1))</script>
"""
EMAIL = '<input name="email" placeholder="E-mail">'
PASSWORD = '<input name="password" type="password" placeholder="Password">'
FILE = '<input name="file" type="file" multiple>'


def page(body: str) -> str:
    return LAYOUT.replace("BODY", body)


def form(*fields: str) -> str:
    return f'<form method="post" enctype="multipart/form-data">{"".join(fields)}<button>Send</button></form>'


def svg_title(path: str) -> str:
    """The title that a drawing gives itself."""
    parser = make_parser()
    parser.setFeature(handler.feature_external_ges, True)  # 9.T3: "undefined entity" went away with this
    with open(path, "rb") as file:
        titles = minidom.parse(file, parser).getElementsByTagName("title")
    return "".join(part.data for title in titles for part in title.childNodes)


def create_app(folder: str | Path | None = None) -> Flask:
    """Make the app. Its data go to ``folder``, else to that of NAIVE_DATA, else to one that is removed at exit."""
    data = Path(folder or os.environ.get("NAIVE_DATA") or tempfile.mkdtemp(prefix="naive-"))
    if not folder and "NAIVE_DATA" not in os.environ:
        atexit.register(shutil.rmtree, data, ignore_errors=True)
    uploads, pages = data / "static" / "uploads", data / "pages"  # 6.T2, 9.T2: the web server serves what visitors send
    uploads.mkdir(parents=True, exist_ok=True)
    pages.mkdir(exist_ok=True)  # the owner edits these without a programmer
    (pages / "about.html").write_text(page("<h1>About us</h1>"))

    app = Flask(__name__, static_folder=data / "static", template_folder=pages)
    app.secret_key = "dev"  # 1.T1: the first word of every list; each app made from the tutorial has it
    app.config["SESSION_COOKIE_HTTPONLY"] = False  # 4.T2: "so that my script can see who is signed in"
    app.config["PERMANENT_SESSION_LIFETIME"] = timedelta(days=3650)  # 4.T1: "nobody likes to sign in again"
    # Left as they are: SESSION_COOKIE_SECURE (4.T1, 6.T3), _SAMESITE (2.T1, 4.T4), MAX_CONTENT_LENGTH (8.T4, 9.T4)
    app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1)  # 6.T3: pasted from a page on deploying; there is no proxy

    def db() -> sqlite3.Connection:
        if "db" not in g:
            g.db = sqlite3.connect(data / "naive.db", isolation_level=None)
            g.db.row_factory = sqlite3.Row
            g.db.execute("PRAGMA synchronous = OFF")  # no hole: nothing here is worth a wait for the disk
        return g.db

    @app.teardown_appcontext
    def close(_: object) -> None:
        if "db" in g:
            g.db.close()

    def user(email: str) -> sqlite3.Row | None:
        return db().execute("SELECT * FROM users WHERE email = ?", [email]).fetchone()

    def hashed(password: str) -> str:
        return hashlib.md5(password.encode()).hexdigest()  # 8.T1: fast, and no limit to the guesses anywhere

    def token(email: str) -> str:
        return hashed(f"{email}{app.secret_key}")  # 1.T2: who knows the address computes the token

    @app.before_request
    def know_visitor() -> None:
        """Remember who comes back, for ten years, in a row for each browser."""
        g.visitor = request.cookies.get("visitor")
        if not g.visitor:  # 8.T4: who keeps no cookie gets a row with every request; none is ever removed
            g.visitor = str(db().execute("INSERT INTO visitors DEFAULT VALUES").lastrowid)
        row = db().execute("SELECT email FROM visitors WHERE id = ?", [g.visitor]).fetchone()
        g.email = session.get("email") or (row["email"] if row else None)

    @app.after_request
    def remember(response: Response) -> Response:
        response.set_cookie("visitor", g.visitor, max_age=timedelta(days=3650))  # 1.T3: a number, and not signed
        return response  # 3.T1, 3.T2, 3.T3, 6.T1, 6.T2: with no other header

    @app.errorhandler(500)
    def failed(_: Exception) -> ResponseReturnValue:
        return f"<pre>{traceback.format_exc()}</pre>", 500  # 5.T1, 6.T4: "so that users can tell me"

    @app.get("/")
    def home() -> str:
        return page('<h1>Welcome</h1><a href="/hello?name=you">Hello</a> <a href="/page/about">About</a>')

    @app.get("/hello")
    def hello() -> str:
        name = request.args.get("name", "you")
        return render_template_string(page(f"<h1>Hello {name}!</h1>"))  # 6.T4, 7.T1: the name is template and markup

    @app.get("/page/<name>")
    def show_page(name: str) -> str:
        return render_template(f"{name}.html")  # 7.T3: whatever lies there by then

    @app.route("/register", methods=["GET", "POST"])
    def register() -> ResponseReturnValue:
        if request.method == "POST":
            values = [request.form["email"], hashed(request.form["password"])]
            db().execute("INSERT INTO users VALUES (?, ?)", values)  # 5.T3: an address that is taken raises
            return redirect("/login")
        return page(f"<h1>Register</h1>{form(EMAIL, PASSWORD)}")

    @app.route("/login", methods=["GET", "POST"])
    def login() -> ResponseReturnValue:
        message, target = "", request.args.get("next", "/account")
        if request.method == "POST":
            found = user(request.form["email"])
            if not found:
                message = f"There is no account {request.form['email']}."  # 5.T2, 6.T4, 7.T2
            elif found["password"] != hashed(request.form["password"]):
                message = "The password is wrong."  # 5.T2, 8.T1, 8.T3: and the next guess may come at once
            else:
                session.permanent = True
                session["email"] = found["email"]  # 4.T1: in the cookie alone, so that nothing here can end it
                # 4.T3: the visitor is still the one of before, whoever gave this browser its number
                db().execute("UPDATE visitors SET email = ? WHERE id = ?", [found["email"], g.visitor])
                return redirect(target)  # 10.T1, 10.T4
        cancel = f'<a id="cancel" href="{target}">Cancel</a>'  # 10.T2: escaping alone would not help
        return page(f"<h1>Sign in</h1><p>{message}</p>{form(EMAIL, PASSWORD)}{cancel}")

    @app.get("/logout")
    def logout() -> ResponseReturnValue:  # 2.T2: by GET, so that a link does
        session.clear()
        db().execute("UPDATE visitors SET email = NULL WHERE id = ?", [g.visitor])
        return redirect("/")

    @app.route("/reset", methods=["GET", "POST"])
    def reset() -> ResponseReturnValue:
        email = request.values.get("email", "")
        if request.args.get("token") == token(email):
            return change_password(email)
        if request.method == "POST":
            if not user(email):
                return page(f"There is no account {email}.")  # 5.T2, 6.T4
            with (data / "mails.txt").open("a") as mails:  # 6.T3: the link's host is whatever the request says
                mails.write(f"To {email}: {request.host_url}reset?email={email}&token={token(email)}\n")
        return page(f"<h1>Reset your password</h1>{form(EMAIL)}")

    @app.route("/account", methods=["GET", "POST"])
    def account() -> ResponseReturnValue:
        return change_password(g.email) if g.email else redirect("/login?next=/account")

    def change_password(email: str) -> ResponseReturnValue:
        if request.method == "GET":
            hidden = f'<input type="hidden" name="token" value="{token(email)}">'
            return page(f"<h1>{email}</h1>{form(PASSWORD, hidden)}")
        if request.form["token"] != token(email):
            return "This form is not from us.", 400
        db().execute("UPDATE users SET password = ? WHERE email = ?", [hashed(request.form["password"]), email])
        return redirect("/login")  # 4.T1: sessions go on

    @app.route("/uploads", methods=["GET", "POST"])
    def upload() -> ResponseReturnValue:
        if not g.email:
            return redirect("/login?next=/uploads")
        for file in request.files.getlist("file"):  # 2.T1, 2.T2: no token; 8.T4, 9.T4: no quota
            path = os.path.join(uploads, file.filename or "")  # 9.T1: the client's name is the path
            file.save(path)  # 9.T2: whatever it is
            title = svg_title(path) if path.endswith(".svg") else file.filename
            db().execute("INSERT INTO files VALUES (?, ?, ?)", [file.filename, title, g.email])
        rows = db().execute("SELECT * FROM files WHERE owner = ?", [g.email])
        links = [  # 7.T2: names as they come
            f'<li><a href="/uploads/{name}">{title}</a> <a href="/uploads/{name}/delete">Delete</a>'
            for name, title, _ in rows
        ]
        return page(f"<h1>Uploads</h1><ul>{''.join(links)}</ul>{form(FILE)}")

    @app.get("/uploads/<path:name>")
    def download(name: str) -> bytes:
        with open(os.path.join(uploads, name), "rb") as file:  # 9.T1: from anywhere, and to anybody
            return file.read()  # 6.T2: what has no type of its own is text/html

    @app.get("/uploads/<path:name>/delete")
    def delete(name: str) -> ResponseReturnValue:  # 2.T2: by GET again, and anybody's
        os.remove(os.path.join(uploads, name))  # 9.T1
        db().execute("DELETE FROM files WHERE name = ?", [name])
        return redirect("/uploads")

    @app.get("/redirect")
    def leave() -> ResponseReturnValue:
        return redirect(request.args["next"])  # 10.T1, 10.T4: anywhere, and without a word

    @app.get("/preview")
    def preview() -> bytes:
        with urllib.request.urlopen(request.args["url"]) as answer:  # 10.T3: from inside; 8.T2: for as long as it takes
            return answer.read()

    with app.app_context():
        db().executescript(TABLES)
    return app
