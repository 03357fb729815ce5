"""Chromium, in which every host name leads to loopback, so that a test can serve ``https://attacker.test``."""

from __future__ import annotations

from playwright.sync_api import Browser, Playwright

from tests.programs import PROGRAMS

# Chromium takes the last list alone, so what Playwright switches off is here too.
OFF = """
    AimEnabled AvoidCorsURLLoaderRestartOnRedirect AvoidUnnecessaryBeforeUnloadCheckSync DestroyProfileOnBrowserClose
    HttpsFirstBalancedModeAutoEnable HttpsUpgrades LensOverlay MediaRouter NetworkTimeServiceQuerying OptimizationHints
    PaintHolding PreconnectToSearch ThirdPartyStoragePartitioning
""".split()  # noqa: SIM905 - a table
# The lists below the address bar. Nobody sees them, and they would take as much time as most pages.
OFF += ["WebUIOmniboxAimPopup", "WebUIOmniboxPopup"]


def launch(playwright: Playwright) -> Browser:
    """Start the browser that CHROMIUM names, else the system's, else Playwright's own."""
    return playwright.chromium.launch(
        executable_path=PROGRAMS["browser"].path(),
        args=[
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-background-networking",
            "--disable-component-update",
            "--host-resolver-rules=MAP * 127.0.0.1",
            # Reports leave at once, and also for a server whose certificate the browser does not know.
            "--short-reporting-delay",
            "--ignore-certificate-errors",
            f"--disable-features={','.join(OFF)}",
        ],
    )
