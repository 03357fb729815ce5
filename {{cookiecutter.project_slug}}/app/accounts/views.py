"""Accounts: register, sign in and out, reset and change the password, end sessions, delete the account.

Responses to a visitor who is not signed in don't reveal whether an address has an account, in wording or in timing.
One leak remains, because accounts work without a confirmation by mail: a visitor who registers an address and then
can't sign in knows that it had an account. This costs a guess of the backoff, and the owner is notified by mail.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, Flask, Response, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_security import current_user, hash_password
from flask_security.changeable import change_user_password
from flask_security.confirmable import (
    confirm_email_token_status,
    confirm_user,
    generate_confirmation_link,
    send_confirmation_instructions,
)
from flask_security.recoverable import (
    reset_password_token_status,
    send_reset_password_instructions,
    update_password,
)
from flask_security.utils import send_mail, verify_and_update_password
from flask_wtf import FlaskForm
from werkzeug.exceptions import HTTPException
from wtforms import EmailField, Field, HiddenField, PasswordField
from wtforms.validators import EqualTo, InputRequired, Length, StopValidation

from app.accounts import credentials, identity
from app.accounts.database import answer_to_a_race
from app.accounts.devices import device_name
from app.accounts.mail import LIMIT, claim_new_password, may_be_sent_to
from app.accounts.models import Session, User, db, utcnow
from app.logs import security_event
from app.security.backoff import attempt_succeeded, claim_attempt, remaining_tries
from app.security.cookies import start_session
from app.security.csrf import form_view
from app.security.errors import Refusal, refuse, respond
from app.security.rate_limits import limited
from app.security.urls import redirect_to
from app.storage.stored import storage
from app.visitors import public

# Flask-Security builds its links with the endpoints of the blueprint "security".
security = Blueprint("security", __name__)
bp = Blueprint("accounts", __name__, template_folder="templates")

# For example a sign-in to an account that is deleted at this moment. Only here: elsewhere it would hide a mistake.
security.register_error_handler(sa.exc.IntegrityError, answer_to_a_race)
bp.register_error_handler(sa.exc.IntegrityError, answer_to_a_race)

# True for an address without an account too, and while no mail can be delivered.
TOO_MANY_LINKS = f"{LIMIT.amount} links were requested for this address, the maximum for one hour. Use the newest one."


def init_app(app: Flask) -> None:
    """Register the pages."""
    app.config["SECURITY_PASSWORD_LENGTH_MIN"] = credentials.MIN_LENGTH  # for the hints in the forms
    app.register_blueprint(security)
    app.register_blueprint(bp)


def _is_address(form: FlaskForm, field: Field) -> None:
    try:
        field.data = credentials.normal_email(field.data)
    except ValueError as error:
        raise StopValidation(str(error)) from error


def _is_strong(form: FlaskForm, field: Field) -> None:
    email = form.email.data if "email" in form else form.account.email
    if fault := credentials.fault(field.data, email or ""):
        raise StopValidation(fault)


# Any: WTForms types data as optional, which the validators rule out.
def _email() -> Any:
    return EmailField("E-mail address", validators=[InputRequired("Please enter your e-mail address."), _is_address])


def _password(label: str, *validators: Any, autocomplete: str = "new-password") -> Any:
    return PasswordField(
        label,
        filters=[lambda password: password and credentials.normal_password(password)],
        validators=[InputRequired("Please enter the password."), *validators],
        render_kw={"autocomplete": autocomplete},
    )


def _current_password() -> Any:
    # Hashing fails on passwords of several thousand characters.
    return _password("Password", Length(max=credentials.MAX_LENGTH), autocomplete="current-password")


class SignInForm(FlaskForm):  # type: ignore[misc]
    """Who somebody is; ``next`` is where to go then."""

    email = _email()
    password = _current_password()
    next = HiddenField()


class EmailForm(FlaskForm):  # type: ignore[misc]
    """An address."""

    email = _email()


class RegisterForm(EmailForm):
    """An address and a password for it."""

    password = _password("Password", _is_strong)
    password_confirm = _password("Password again", EqualTo("password", "The two passwords differ."))


class NewPasswordForm(FlaskForm):  # type: ignore[misc]
    """A new password for ``account``."""

    account: User
    password = _password("New password", _is_strong)
    password_confirm = _password("New password again", EqualTo("password", "The two passwords differ."))


class PasswordForm(FlaskForm):  # type: ignore[misc]
    """The signed-in user's password, to confirm an action."""

    password = _current_password()


class ChangePasswordForm(PasswordForm):
    """The signed-in user's current password and a new one."""

    account: User
    new_password = _password("New password", _is_strong)
    new_password_confirm = _password("New password again", EqualTo("new_password", "The two passwords differ."))


# The forms that a refusal with a wait shows again, as they were sent, without the passwords.
FORMS: dict[str, tuple[type[FlaskForm], Callable[[FlaskForm], str]]] = {
    "security.login": (SignInForm, lambda form: render_template("security/login_user.html", login_user_form=form)),
    "security.register": (
        RegisterForm,
        lambda form: render_template("security/register_user.html", register_user_form=form),
    ),
    "security.forgot_password": (
        EmailForm,
        lambda form: render_template("security/forgot_password.html", forgot_password_form=form),
    ),
    "security.change_password": (
        ChangePasswordForm,
        lambda form: render_template("security/change_password.html", change_password_form=form),
    ),
    "accounts.delete": (PasswordForm, lambda form: render_template("account_delete.html", form=form)),
}


@security.errorhandler(Refusal)
@bp.errorhandler(Refusal)
def show_the_form_again(refusal: Refusal) -> Response:
    """Return the form of this request with the wait, if too many were sent; for every other refusal the error page.

    The form is not validated, so nothing that was sent takes effect. A request without this site's session gets the
    error page: the form would start a session, and so end that of a visitor whom another site sent here.
    """
    response = respond(refusal)
    sent = FORMS.get(request.endpoint or "") if request.method == "POST" and "csrf_token" in session else None
    if sent and refusal.retry_after and response.mimetype == "text/html":
        kind, page = sent
        try:
            form = kind(request.form)
        except HTTPException:  # it can't be read
            return response
        form.form_errors.append(refusal.message)
        form.retry_after = refusal.retry_after
        response.set_data(page(form))
    return response


@security.route("/login", methods=["GET", "POST"])
@public
@form_view
@limited("sign_in")
def login() -> ResponseReturnValue:
    """Sign in, then redirect to ``next`` if that is safe."""
    form = SignInForm(request.form, next=request.args.get("next"))
    if current_user.is_authenticated:
        return redirect_to(form.next.data, "pages.home")
    if not form.validate_on_submit():
        return render_template("security/login_user.html", login_user_form=form), _status(form)
    claim_attempt(form.email.data)
    user = identity.find_user(form.email.data)
    if user is None:
        hash_password(form.password.data)  # as much work as to verify one
    elif verify_and_update_password(form.password.data, user):
        attempt_succeeded(form.email.data)
        identity.sign_in(user)
        security_event("authn_login_success", account=user.email)
        return redirect_to(form.next.data, "pages.home")
    security_event("authn_login_fail", account=form.email.data)
    form.form_errors.append("The e-mail address or the password is wrong.")
    tries = remaining_tries(form.email.data)
    return render_template("security/login_user.html", login_user_form=form, remaining_tries=tries), 403


@security.post("/logout")
@public
def logout() -> ResponseReturnValue:
    """Sign out. Signing out twice is harmless."""
    identity.sign_out()
    return _goodbye("You are signed out.")


@security.route("/register", methods=["GET", "POST"])
@public
@form_view
@limited("register")
def register() -> ResponseReturnValue:
    """Create an account, or notify the owner of an existing one by mail."""
    if current_user.is_authenticated:
        return redirect(url_for("accounts.account"), 303)
    form = RegisterForm(request.form)
    if not form.validate_on_submit():
        return render_template("security/register_user.html", register_user_form=form), _status(form)
    email = form.email.data
    claim_new_password(email, "register")
    user = identity.create_user(email, form.password.data)
    template = "welcome" if user else "welcome_existing"
    link = generate_confirmation_link(user)[0] if user else ""  # type: ignore[no-untyped-call]
    send_mail("Your account", email, f"security/email/{template}", confirmation_link=link)
    db.session.commit()
    flash("Your account is ready, you can sign in. If this address already had an account, it is unchanged.")
    return redirect(url_for("security.login"), 303)


@security.route("/reset", methods=["GET", "POST"])
@public
@form_view
@limited("reset")
def forgot_password() -> ResponseReturnValue:
    """Send a link for a new password."""
    form = EmailForm(request.form)
    if not form.validate_on_submit():
        return render_template("security/forgot_password.html", forgot_password_form=form), _status(form)
    # For an unknown address the same work is done: app/accounts/mail.py writes a mail to nobody and deletes it.
    nobody = User(email="", password="", fs_uniquifier="")  # nosec B106
    if may_be_sent_to(form.email.data, "reset"):
        send_reset_password_instructions(identity.find_user(form.email.data) or nobody)  # type: ignore[no-untyped-call]
        db.session.commit()
        flash("If this address has an account, a link is on its way to it. The link works once, within one hour.")
    else:
        flash(TOO_MANY_LINKS, "error")
    return redirect(url_for("security.login"), 303)


@security.route("/reset/<string(maxlength=512):token>", methods=["GET", "POST"])
@public
@form_view
@limited("reset")
def reset_password(token: str) -> ResponseReturnValue:
    """Set a new password with the link from the mail, and end all sessions."""
    expired, invalid, user = reset_password_token_status(token)  # type: ignore[no-untyped-call]
    if expired or invalid or user is None:
        security_event("input_validation_fail", field="token", reason="The link was used, is too old or not ours.")
        flash("This link has been used or is too old. Here you can get another one.", "error")
        return redirect(url_for("security.forgot_password"), 303)
    form = NewPasswordForm(request.form)
    form.account = user
    if not form.validate_on_submit():
        page = {"reset_password_form": form, "reset_password_token": token, "starts_empty": user.confirmed_at is None}
        return render_template("security/reset_password.html", **page), _status(form)
    former_owner = user.owner_key
    if user.confirmed_at is None:
        user = identity.start_empty(user)
        user.confirmed_at = utcnow()
    update_password(user, form.password.data)  # type: ignore[no-untyped-call]
    db.session.commit()
    if user.owner_key != former_owner:
        storage().delete_all(former_owner)
    attempt_succeeded(user.email, new_password=True)
    security_event("authn_password_change", account=user.email, by="reset")
    flash("Your new password is set. Please sign in with it.")
    return redirect(url_for("security.login"), 303)


@security.route("/account/password", methods=["GET", "POST"])
@form_view
def change_password() -> ResponseReturnValue:
    """Change the password, and end all other sessions."""
    form, user = ChangePasswordForm(request.form), identity.member()
    form.account = user
    if not (form.validate_on_submit() and _knows_password(user, form.password)):
        return render_template("security/change_password.html", change_password_form=form), _status(form)
    claim_new_password(user.email, "change")
    change_user_password(user, form.new_password.data, autologin=False)
    identity.sign_in(user)
    attempt_succeeded(user.email, new_password=True)
    security_event("authn_password_change", account=user.email, by="owner")
    flash("Your password is changed. All other browsers are signed out.")
    return redirect(url_for("accounts.account"), 303)


@bp.get("/account")
def account() -> ResponseReturnValue:
    """Show the account and its sessions."""
    sessions = [
        {
            "id": entry.id,
            "created_at": entry.created_at.replace(tzinfo=UTC),
            "last_seen_at": entry.last_seen_at.replace(tzinfo=UTC),
            "device": device_name(entry.user_agent),
            "current": entry.id == identity.current_session_id(),
        }
        for entry in identity.live_sessions(identity.member())
    ]
    return render_template("account.html", sessions=sessions, end_form=FlaskForm())


@security.route("/account/confirm/<string(maxlength=512):token>", methods=["GET", "POST"])
@form_view
def confirm_email(token: str) -> ResponseReturnValue:
    """Confirm the account's address with the link from the mail, so that a reset keeps what is in the account."""
    expired, invalid, user = confirm_email_token_status(token)  # type: ignore[no-untyped-call]
    if expired or invalid or user != identity.member():
        flash("This link is too old, or is one of another account. Here you can get another one.", "error")
        return redirect(url_for("accounts.account"), 303)
    form = FlaskForm(request.form)
    if not form.validate_on_submit():
        return render_template("security/confirm_email.html", form=form, token=token), _status(form)
    confirm_user(identity.member())  # type: ignore[no-untyped-call]
    db.session.commit()
    flash("Your address is confirmed.")
    return redirect(url_for("accounts.account"), 303)


@bp.post("/account/confirm")
def send_confirmation() -> ResponseReturnValue:
    """Send another link that confirms the account's address."""
    user = identity.member()
    if may_be_sent_to(user.email, "confirm"):
        send_confirmation_instructions(user)  # type: ignore[no-untyped-call]
        db.session.commit()
        flash("A link is on its way to your address. It works for two days.")
    else:
        flash(TOO_MANY_LINKS, "error")
    return redirect(url_for("accounts.account"), 303)


@bp.post("/account/sessions/<hex_id:session_id>/end")
def end_session(session_id: str) -> ResponseReturnValue:
    """End one session of the account."""
    if not identity.end_sessions(Session.id == session_id):
        refuse(404, "This session has already ended.", event="authz_fail")
    flash("That session has ended.")
    return redirect(url_for("accounts.account"), 303)


@bp.post("/account/sessions/end")
def end_other_sessions() -> ResponseReturnValue:
    """End all sessions of the account except this one."""
    identity.end_sessions(Session.id != identity.current_session_id())
    flash("You are signed out everywhere else.")
    return redirect(url_for("accounts.account"), 303)


@bp.route("/account/delete", methods=["GET", "POST"])
@form_view
def delete() -> ResponseReturnValue:
    """Delete the account with all its files, after the password was confirmed."""
    form, user = PasswordForm(request.form), identity.member()
    if not (form.validate_on_submit() and _knows_password(user, form.password)):
        return render_template("account_delete.html", form=form), _status(form)
    identity.end_sessions(sa.true())  # first, so that no other browser can upload meanwhile
    identity.erase(user)
    if may_be_sent_to(user.email, "delete"):
        send_mail("Your account is deleted", user.email, "security/email/delete_notice")
    db.session.commit()
    storage().delete_all(user.owner_key)
    start_session()
    security_event("user_deleted", account=user.email)
    return _goodbye("Your account and your files are deleted.")


def _goodbye(message: str) -> ResponseReturnValue:
    """Redirect to the home page, and make the browser delete what scripts have stored for this origin (ASVS V14.3.1).

    Not "cookies": that would also delete those of other apps on the same domain (example.com and all of its hosts), and
    ``message`` travels in one. Not "cache": it can hold Chromium up for seconds, and every personal page is no-store.
    """
    flash(message)
    return redirect(url_for("pages.home"), 303), {"Clear-Site-Data": '"storage"'}


def _knows_password(user: User, field: Field) -> bool:
    """Return whether ``field`` has the user's password. The sign-in's backoff limits guesses in a borrowed browser."""
    claim_attempt(user.email)
    if verify_and_update_password(field.data, user):
        attempt_succeeded(user.email)
        return True
    security_event("authn_login_fail", account=user.email)
    field.errors = [f"This is not your password. Tries left before you have to wait: {remaining_tries(user.email)}"]
    return False


def _status(form: FlaskForm) -> int:
    return 400 if form.is_submitted() else 200
