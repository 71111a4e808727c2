"""YAML text edited in place: what did not change keeps its bytes, comments, quotes and spacing included.

`patch` takes a text, what it says and what it is to say, and rewrites only the entries that differ. It works on the
positions of the parsed nodes, so it needs no second idea of YAML: an entry that stays is copied from the text.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
WIDTH = 112
PLAIN = re.compile(r"[A-Za-z_*][A-Za-z0-9_./+*>-]*(?: [A-Za-z0-9_./+*>-]+)*")
WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")


def compose(text: str) -> yaml.Node | None:
    """The nodes of a text with their positions; scalars are not interpreted."""
    return yaml.compose(text, Loader=LOADER)


def same(a: Any, b: Any) -> bool:
    """Equality as YAML sees it: 1 and 1.0 are one number, true and 1 are not, and keys have an order."""
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def patch(text: str, old: Any, new: Any) -> str:
    """`text`, which says `old`, changed so that it says `new`."""
    if same(old, new):
        return text
    node = compose(text)
    if node is None:
        return block(new, 0) + "\n"
    editor = _Editor(text)
    start, end = node.start_mark.index, editor.end(node)
    return text[:start] + editor.rewrite(node, old, new, _column(text, start)) + text[end:]


def scalar(value: Any, flow: bool = True) -> str:
    """One value as YAML text, quoted where a reader could take it for something else."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        text = repr(value)
        if text in ("inf", "-inf", "nan"):
            return text.replace("inf", ".inf").replace("nan", ".nan")
        return re.sub(r"^(-?\d+)e", r"\1.0e", text)
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if PLAIN.fullmatch(text) and text.lower() not in WORDS:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def block(value: Any, indent: int, force: bool = True) -> str:
    """A value over several lines, the first at the current column and the others at `indent`."""
    if not isinstance(value, dict | list) or not value:
        return flow(value)
    if not force and indent + len(flow(value)) <= WIDTH:
        return flow(value)
    pad = "\n" + " " * indent
    if isinstance(value, list):
        return pad.join("- " + block(item, indent + 2, force=False) for item in value)
    return pad.join(entry(key, item, indent) for key, item in value.items())


def entry(key: Any, value: Any, indent: int, force: bool = False) -> str:
    """`key: value` in a block mapping at `indent`."""
    text = block(value, indent + 2, force)
    several = isinstance(value, dict | list) and value and text != flow(value)
    if not several and force and isinstance(value, dict | list) and value:
        several = not text.startswith(("{", "["))
    return f"{scalar(key)}:" + ("\n" + " " * (indent + 2) if several else " ") + text


def _column(text: str, index: int) -> int:
    return index - (text.rfind("\n", 0, index) + 1)


@dataclass
class _Item:
    """An entry as it stands in the text: what comes before it, and where it begins and ends."""

    start: int
    end: int
    key: yaml.Node | None
    value: yaml.Node


class _Editor:
    """Rewrites nodes of one text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def is_block(self, node: yaml.Node) -> bool:
        return isinstance(node, yaml.CollectionNode) and not node.flow_style

    def end(self, node: yaml.Node) -> int:
        """Where a node's text ends; a block collection owns the comment behind its last entry."""
        if self.is_block(node):
            return self.items(node)[-1].end
        end = node.end_mark.index
        while end > node.start_mark.index and self.text[end - 1] in " \t\r\n":
            end -= 1
        return end

    def line_end(self, index: int) -> int:
        found = self.text.find("\n", index)
        return len(self.text) if found < 0 else found

    def items(self, node: yaml.Node) -> list[_Item]:
        """The entries of a collection."""
        found: list[_Item] = []
        inside = node.start_mark.index
        for each in node.value:
            key, value = each if isinstance(each, tuple) else (None, each)
            begin = (key or value).start_mark.index
            end = max(self.end(value), self.after_colon(key) if key is not None else 0)
            if self.is_block(node):
                if key is None:
                    begin = self.text.rfind("-", inside, max(begin, inside + 1))
                    end = max(end, begin + 1)
                end = self.line_end(end)
            found.append(_Item(begin, end, key, value))
            inside = end
        return found

    def after_colon(self, key: yaml.Node) -> int:
        return self.text.index(":", key.end_mark.index) + 1

    def rewrite(self, node: yaml.Node, old: Any, new: Any, indent: int) -> str:
        """The text that takes the place of `node`, from its start to its end."""
        if same(old, new):
            return self.text[node.start_mark.index : self.end(node)]
        if not new or not isinstance(node, yaml.CollectionNode) or not node.value:
            return flow(new)
        if isinstance(node, yaml.MappingNode) and isinstance(old, dict) and isinstance(new, dict):
            plan = self.mapping_plan(old, new)
        elif isinstance(node, yaml.SequenceNode) and isinstance(old, list) and isinstance(new, list):
            plan = self.sequence_plan(old, new)
        else:
            return flow(new)
        return self.joined(node, old, new, plan, indent)

    def mapping_plan(self, old: dict[str, Any], new: dict[str, Any]) -> list[tuple[int | None, Any]]:
        """(index of the entry that is kept or None, key) for every entry of `new`; a renamed entry is kept."""
        where = {key: index for index, key in enumerate(old)}
        gone = [key for key in old if key not in new]
        plan: list[tuple[int | None, Any]] = []
        for key in new:
            index = where.get(key)
            if index is None:
                twin = next((k for k in gone if same(old[k], new[key]) and old[k] not in ({}, [], None)), None)
                if twin is not None:
                    gone.remove(twin)
                    index = where[twin]
            plan.append((index, key))
        return plan

    def sequence_plan(self, old: list[Any], new: list[Any]) -> list[tuple[int | None, Any]]:
        was, now = ([json.dumps(item, sort_keys=True, default=str) for item in side] for side in (old, new))
        plan: list[tuple[int | None, Any]] = []
        for tag, a, b, c, d in difflib.SequenceMatcher(None, was, now, autojunk=False).get_opcodes():
            for offset, place in enumerate(range(c, d)):
                kept = a + offset if tag in ("equal", "replace") and a + offset < b else None
                plan.append((kept, place))
        return plan

    def joined(self, node: yaml.Node, old: Any, new: Any, plan: list[tuple[int | None, Any]], indent: int) -> str:
        """The kept entries with what stood between them, and the new ones, in the order of the plan."""
        items, is_block = self.items(node), self.is_block(node)
        keys = list(old) if isinstance(old, dict) else list(range(len(old)))
        used = [index for index, _ in plan if index is not None]
        ordered = used == sorted(used)
        out = "" if is_block else self.text[node.start_mark.index : items[0].start]
        last: int | None = None
        passed = 0
        for place, (index, key) in enumerate(plan):
            if index is None or not ordered:
                lead = "" if place == 0 else ("\n" + " " * indent if is_block else ", ")
            else:
                lead = self.lead(items, passed, index, is_block, indent, first=place == 0)
                passed = index + 1
            if index is None:
                airy = is_block and indent == 0 and place > 0 and "\n\n" in self.text
                body = self.fresh(node, new, key, indent)
                lead = "\n" + lead if airy else lead
            else:
                body = self.kept(items[index], old[keys[index]], new[key], key, keys[index], indent, is_block)
            out, last = out + lead + body, index
        if not is_block:
            return out + self.text[items[-1].end : self.end(node)]
        if last is not None or passed < len(items):
            out += self.comments(items, passed, len(items), ordered)
        return out

    def lead(self, items: list[_Item], passed: int, index: int, is_block: bool, indent: int, first: bool) -> str:
        """What stands before an entry, with the comment lines of the entries that were dropped before it."""
        gap = self.text[items[index - 1].end : items[index].start] if index else ""
        if not is_block:
            return "" if first else (gap or ", ")
        pieces = [self.gap_comments(items, i) for i in range(passed, index)]
        before = "".join(piece for piece in pieces if piece)
        if first:
            return (before + gap).lstrip() if index else ""
        return before + (gap or "\n" + " " * indent)

    def gap_comments(self, items: list[_Item], index: int) -> str:
        """The comment lines above an entry, each with the line break before it."""
        gap = self.text[items[index - 1].end : items[index].start] if index else ""
        return "".join("\n" + line for line in gap.split("\n")[1:-1] if line.strip())

    def comments(self, items: list[_Item], start: int, stop: int, ordered: bool) -> str:
        return "".join(self.gap_comments(items, i) for i in range(start, stop)) if ordered else ""

    def fresh(self, node: yaml.Node, new: Any, key: Any, indent: int) -> str:
        if isinstance(new, dict):
            return (
                entry(key, new[key], indent, force=indent == 0)
                if self.is_block(node)
                else f"{scalar(key)}: {flow(new[key])}"
            )
        return "- " + block(new[key], indent + 2, force=False) if self.is_block(node) else flow(new[key])

    def kept(self, item: _Item, old: Any, new: Any, key: Any, was: Any, indent: int, is_block: bool) -> str:
        """An entry of the text with its value rewritten, and its key where it was renamed."""
        value, start = item.value, item.value.start_mark.index
        end = self.end(value)
        head = self.text[item.start : start]
        if item.key is not None and key != was:
            head = scalar(key) + self.text[item.key.end_mark.index : start]
        if same(old, new):
            return head + self.text[start : item.end]
        tail = self.text[max(end, start) : item.end]
        text = self.rewrite(value, old, new, _column(self.text, start))
        if self.is_block(value) and (not new or text == flow(new)):
            colon = item.start + 1 if item.key is None else self.after_colon(item.key)
            between = self.text[colon:start].rstrip()
            name = "-" if item.key is None else f"{scalar(key) if key != was else self.text[item.start : colon - 1]}:"
            return f"{name} {text}{between}"
        if is_block and item.key is not None and not self.is_block(value) and not old and isinstance(new, dict | list):
            return entry(key, new, indent, force=indent == 0) + tail
        if item.key is not None and start <= item.key.end_mark.index + 1:
            head = head.rstrip() + " "
        return head + text + tail
