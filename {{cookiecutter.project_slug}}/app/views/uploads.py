"""The visitor's own uploads: send, list, download, delete."""

from __future__ import annotations

from flask import Blueprint, current_app, flash, jsonify, redirect, render_template, request, session, url_for
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue
from flask_wtf import FlaskForm
from flask_wtf.file import FileRequired, MultipleFileField
from werkzeug.datastructures import CombinedMultiDict, FileStorage

from app.breaker import Breaker
from app.security import uploads
from app.security.csrf import form_view
from app.security.errors import Refusal, log_refusal, refuse, wants_json, wants_problem
from app.security.rate_limits import limited
from app.storage import clamd, folder
from app.storage.stored import StoredFile, storage
from app.views import health
from app.visitors import visitors

bp = Blueprint("uploads", __name__)

CLAMD_SECONDS = 2
_pings = Breaker(threads=1)  # anybody can ask for /readyz; not that of the scans, which a ping says nothing about


class UploadForm(FlaskForm):  # type: ignore[misc]
    """One file or several."""

    file = MultipleFileField("Files", validators=[FileRequired("Please choose a file.")])


@bp.route("/uploads", methods=["GET", "POST"])
@form_view
@limited("upload")
def index() -> ResponseReturnValue:
    """List the files, and accept new ones: all files of a request or none."""
    # With explicit data, the form does not parse a JSON body, on which FlaskForm would fail.
    form, status = UploadForm(CombinedMultiDict((request.files, request.form))), 200
    if form.validate_on_submit():
        try:
            return _accepted(_saved(form.file.data))
        except Refusal as refusal:
            if wants_problem() or refusal.retry_after:
                raise
            log_refusal(refusal)
            form.file.errors, status = [refusal.message], refusal.code or 422
    elif form.is_submitted():
        if wants_problem():
            refuse(400, next(iter(form.errors.values()))[0])
        status = 400
    files = sorted(storage().listing(_owner()), key=lambda file: file.uploaded_at, reverse=True)
    if wants_json():
        return jsonify(files=[_public(file) for file in files])
    return render_template("uploads.html", form=form, files=files, quota=uploads.quota(files)), status


@bp.get("/uploads/<hex_id:file_id>")
def download(file_id: str) -> ResponseReturnValue:
    """Send a file to its owner. With ``?inline=1``, the browser shows an image instead of saving it."""
    return uploads.send(uploads.find(_owner(), file_id), inline=request.args.get("inline") == "1")


@bp.post("/uploads/<hex_id:file_id>/delete")
def delete(file_id: str) -> ResponseReturnValue:
    """Delete a file permanently."""
    uploads.delete(_owner(), file_id)
    if wants_json():
        return "", 204
    flash("The file is deleted.")
    return redirect(url_for("uploads.index"), 303)


def _owner() -> str:
    """Return the owner of this session's files. The sign-in sets it; a visitor without an account gets one here."""
    if "owner" not in session:
        session["owner"] = uploads.new_session_owner()
    owner: str = session["owner"]
    return owner


def _saved(files: list[FileStorage]) -> list[StoredFile]:
    stored = uploads.save_all(files, _owner())
    still_here = False
    try:
        # During the upload, another window may have deleted the account and its other files.
        still_here = visitors().is_still_here()
    finally:  # also where the database can't be asked: who reads 503 sends the files again
        if not still_here:
            uploads.discard(stored)
    if not still_here:
        refuse(401, "You were signed out during the upload. None of its files were kept.")
    return stored


def _accepted(files: list[StoredFile]) -> ResponseReturnValue:
    if wants_json():
        if len(files) > 1:
            return jsonify(files=[_public(file) for file in files]), 201
        return jsonify(_public(files[0])), 201, {"Location": url_for("uploads.download", file_id=files[0].id)}
    flash(f"{files[0].name} is uploaded." if len(files) == 1 else f"{len(files)} files are uploaded.")
    return redirect(url_for("uploads.index"), 303)


def _public(file: StoredFile) -> dict[str, object]:
    return {"id": file.id, "name": file.name, "size": file.size, "type": file.type}


@bp.record
def _is_needed(state: BlueprintSetupState) -> None:
    # A bucket is another service: most of the app works without it, and a restart of the app does not repair it.
    kept_here = state.app.extensions["upload_storage"] is folder
    health.needs(state.app, "uploads", lambda: storage().prove(), without="down" if kept_here else "degraded")
    if state.app.config["CLAMD_URL"]:
        health.needs(state.app, "virus_scanner", _ping_scanner, without="degraded")  # all but uploads works


def _ping_scanner() -> None:
    with _pings.attempt(OSError):
        clamd.ping(current_app.config["CLAMD_URL"], seconds=CLAMD_SECONDS)
