"""``flask audit``: say what is implemented, relaxed and missing."""

from __future__ import annotations

import signal
import sys

import click


@click.command("audit")
@click.option("--format", "output", type=click.Choice(["text", "json", "sarif", "html"]), default="text")
@click.option("--strict", is_flag=True, help="Exit 1 also when something is relaxed.")
def command(output: str, strict: bool) -> None:
    """Say what of the ten mitigations is implemented, relaxed or missing, and how to mend it.

    Exit 0: nothing is missing. 1: something is. 2: the audit could not run.
    """
    # Here: the audit is large, and the app starts without it.
    from app import create_app
    from app.audit.report import FORMATS
    from app.audit.run import audit_own

    try:
        report = audit_own(create_app, split=True)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except click.ClickException:
        raise
    except Exception as error:
        click.echo(f"The audit could not run: {type(error).__name__}: {error}", err=True)
        sys.exit(2)
    click.echo(FORMATS[output](report))
    sys.exit(report.exit_code(strict=strict))
