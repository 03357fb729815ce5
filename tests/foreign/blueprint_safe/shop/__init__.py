from flask import Blueprint, render_template, render_template_string

bp = Blueprint("shop", __name__, template_folder="pages", static_folder="static")
ABOUT = "<p>{{ name }}</p>"


@bp.get("/")
def index():
    return render_template("shop.html")


@bp.get("/about")
def about():
    return render_template_string(ABOUT, name="us")
