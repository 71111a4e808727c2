"""The JSON schema of specs, made from the installed parts."""

from __future__ import annotations

from typing import Any

from assembler.part import AdapterPart, DatasetPart, Part
from assembler.registry import parts
from assembler.spec import Document


def spec_schema() -> dict[str, Any]:
    """One schema for editors and validators: every node and adapter is one of the installed parts."""
    schema = Document.model_json_schema()
    schema["title"] = "assembler spec, version 1"
    definitions = schema.setdefault("$defs", {})
    for name, cls in parts().items():
        definitions[name] = _part_schema(name, cls)
    schema["properties"]["nodes"]["additionalProperties"] = _one_of(Part, AdapterPart | DatasetPart)
    schema["properties"]["adapters"]["additionalProperties"] = _one_of(AdapterPart, ())
    return schema


def _part_schema(name: str, cls: type[Part]) -> dict[str, Any]:
    schema = cls.model_json_schema(ref_template=f"#/$defs/{name}/$defs/{{model}}")
    schema["title"] = name
    schema["properties"] = {"type": {"const": name}, **schema.get("properties", {})}
    schema["required"] = ["type", *schema.get("required", [])]
    return schema


def _one_of(kind: type[Part], but: Any) -> dict[str, Any]:
    names = [name for name, cls in parts().items() if issubclass(cls, kind) and not (but and issubclass(cls, but))]
    return {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in names]}
