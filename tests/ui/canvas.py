"""The editor as a person's hands have it: real drags, real keys, and counters to wait for instead of sleeping."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Locator, Page, expect


class Canvas:
    """One editor on one page."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(url)
        self.ready()

    @classmethod
    def on(cls, page: Page) -> Canvas:
        """The editor on a page that is there already."""
        found = object.__new__(cls)
        found.page = page
        return found.ready()

    @property
    def root(self) -> Locator:
        return self.page.locator(".editor")

    def ready(self) -> Canvas:
        """Wait until the editor is drawn, its palette is there and the first check is in."""
        expect(self.root).not_to_have_attribute("data-checked", "-1")
        expect(self.root).not_to_have_attribute("data-parts", "0")
        return self

    def count(self, what: str) -> int:
        return int(self.root.get_attribute(f"data-{what}") or -1)

    def expect_count(self, what: str, count: int) -> None:
        expect(self.root).to_have_attribute(f"data-{what}", str(count))

    def checked(self) -> None:
        """Wait until Python's answer to the newest gesture is in."""
        self.page.wait_for_function(
            """() => {
              const all = [...document.querySelectorAll("*")].flatMap(e => e.shadowRoot ? [e.shadowRoot] : []);
              const editor = all.map(root => root.querySelector(".editor")).find(Boolean);
              return editor && editor.dataset.checked >= editor.dataset.rev && editor.dataset.checked !== "-1"
                && Number(editor.dataset.checked) >= Number(editor.dataset.rev) && editor.dataset.requests === "0";
            }"""
        )

    def node(self, name: str) -> Locator:
        return self.page.locator(f'.react-flow__node[data-id="{name}"]')

    def port(self, node: str, port: str) -> Locator:
        return self.node(node).locator(f'[data-handleid="{port}"]')

    def item(self, part: str) -> Locator:
        return self.page.locator(f'.palette [data-part="{part}"]')

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A place on the canvas, in shares of its width and height."""
        box = self.page.locator(".canvas").bounding_box()
        assert box is not None
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def drag(self, start: tuple[float, float], end: tuple[float, float], drop: bool = True) -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=6)
        mouse.move(*end, steps=8)
        if drop:
            mouse.up()

    def middle(self, what: Locator) -> tuple[float, float]:
        what.scroll_into_view_if_needed()
        box = what.bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drop_part(self, part: str, where: tuple[float, float]) -> None:
        """Drag a part from the palette to a place on the screen."""
        self.page.get_by_role("searchbox", name="Search parts").fill(part)
        self.drag(self.middle(self.item(part)), where)
        self.page.get_by_role("searchbox", name="Search parts").fill("")

    def wire(self, source: str, target: str, port: str = "in", drop: bool = True) -> None:
        """Draw a wire by hand from a node's output to a port."""
        self.drag(self.middle(self.port(source, "out")), self.middle(self.port(target, port)), drop)

    def drop_file(self, text: str, name: str) -> None:
        """Drop a file on the canvas."""
        self.page.locator(".canvas").evaluate(
            """(canvas, [text, name]) => {
              const data = new DataTransfer();
              data.items.add(new File([text], name));
              canvas.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, composed: true }));
            }""",
            [text, name],
        )

    def select(self, node: str) -> None:
        self.node(node).locator("header").click()
        expect(self.node(node)).to_have_class(re.compile("selected"))

    def field(self, name: str) -> Locator:
        return self.page.locator(".form .field", has=self.page.locator(f'label:text-matches("^{name}( \\\\*)?$")'))

    def set(self, name: str, value: str) -> None:
        """Type a value into a field of the inspector and press Enter."""
        box = self.field(name).locator("input")
        box.fill(value)
        box.press("Enter")

    def yaml(self) -> str:
        self.page.get_by_role("tab", name="YAML").click()
        found = self.page.get_by_label("The spec as YAML").input_value()
        self.page.get_by_role("tab", name="Inspector").click()
        return found

    def state(self) -> dict[str, Any]:
        return {key: self.root.get_attribute(f"data-{key}") for key in ("nodes", "edges", "rev", "checked", "problems")}
