"""WebSockets as pages open them: to a site's own server, and to that of another."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page

from tests.attacker import Site
from tests.conftest import Server

# Give what comes back, or the name of the event that says that nothing will.
ECHO = """url => new Promise(resolve => {
  const socket = new WebSocket(url.replace("https", "wss") + "/tested-echo");
  socket.onopen = () => socket.send("Grüße");
  socket.onmessage = message => { socket.close(); resolve(message.data); };
  socket.onerror = event => resolve(event.type);
})"""


def test_2_S6_a_page_opens_a_socket_to_its_own_server_and_another_sites_page_does_not(
    serve: Callable[..., Server], page: Page, attacker: Site
) -> None:
    server = serve("tests.streams:app")
    page.goto(server.url)
    assert page.evaluate(ECHO, server.url) == "Grüße"
    page.goto(attacker.page("<h1>Win a prize</h1>"))
    assert page.evaluate(ECHO, server.url) == "error"
