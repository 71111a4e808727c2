"""The frame: every page opens from the navigation, on a loopback address, with nothing fetched from beyond."""

from playwright.sync_api import expect


def test_every_page_opens(page, server):
    page.goto(server.url)
    for name in ("Gallery", "Train", "Try", "Export", "Runs"):
        page.get_by_role("link", name=name, exact=False).first.click()
        expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
