"""What axe-core finds on a page: what keeps people with a keyboard, a screen reader or weak eyes out."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

# Rules that axe leaves off by default: who speaks to their computer says what they see; fingers need 24 pixels.
ALSO = ("label-content-name-mismatch", "target-size")

RUN = """
async ({also}) => {
    const rules = Object.fromEntries(also.map(id => [id, {enabled: true}]));
    const {violations, passes} = await axe.run(also.length ? {rules} : {runOnly: ["color-contrast"]});
    const found = violations.flatMap(({id, nodes}) => nodes.map(({html}) => [id, html]));
    return passes.length ? found : [["axe looked at nothing", location.href]];
}
"""


def faults(page: Page, scanners: Path) -> list[list[str]]:
    """Return each fault as its rule and its place, in light, and of the colours in dark too."""
    page.evaluate((scanners / "node_modules/axe-core/axe.min.js").read_text())
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    found: list[list[str]] = page.evaluate(RUN, {"also": ALSO})
    page.emulate_media(color_scheme="dark")
    return found + [["dark", *fault] for fault in page.evaluate(RUN, {"also": []})]
