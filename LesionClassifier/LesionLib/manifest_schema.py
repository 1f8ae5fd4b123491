"""The JSON schema of a model's ``configs/metadata.json``: MONAI's bundle keys and our ``lesionlens`` section."""

SCHEMA_VERSION = 1
CLASS_NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9 _-]{0,63}$"
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_NUMBER_PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}

# What else belongs to it depends on the kind: `sampling_kinds.KIND_SCHEMAS`.
_INPUT = {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}}}

_CLASS = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "description", "colorRGB"],
    "properties": {
        "name": {"type": "string", "pattern": CLASS_NAME_PATTERN},
        "description": {"type": "string"},
        "colorRGB": {
            "type": "array",
            "items": {"type": "number", "minimum": 0, "maximum": 1},
            "minItems": 3,
            "maxItems": 3,
        },
    },
}

_LESIONLENS = {
    "type": "object",
    "additionalProperties": False,
    "required": [
        "schema", "architecture", "arguments", "input", "classes", "aggregation", "box_size_mm", "slice_distance_mm",
        "golden_logits", "files", "not_for_clinical_use",
    ],
    "properties": {
        "schema": {"const": SCHEMA_VERSION},
        "architecture": {"type": "string", "pattern": "^[a-z0-9_]{1,64}$"},
        "arguments": {"type": "object", "additionalProperties": {"type": ["number", "integer", "string", "boolean", "null"]}},
        "input": _INPUT,
        "classes": {
            "type": "array", "items": _CLASS, "maxItems": 200, "not": {"minItems": 1, "maxItems": 1},
            "description": "none for a model that only compares lesions",
        },
        "aggregation": {"const": "mean_slice_probability"},
        "box_size_mm": {**_NUMBER_PAIR, "description": "smallest and largest box edge seen in training"},
        "slice_distance_mm": {**_NUMBER_PAIR, "description": "thinnest and thickest slices seen in training"},
        "golden_logits": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}, "minItems": 1},
        "training": {"type": "object"},
        "files": {"type": "object", "additionalProperties": _SHA256, "minProperties": 1},
        "not_for_clinical_use": {"const": True},
    },
}  # fmt: skip

MANIFEST_SCHEMA = {
    "type": "object",
    "required": ["name", "version", "description", "intended_use", "network_data_format", "lesionlens", "sha256"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"},
        "version": {"type": "string", "pattern": "^[0-9]+\\.[0-9]+\\.[0-9]+$"},
        "description": {"type": "string"},
        "intended_use": {"type": "string"},
        "network_data_format": {"type": "object"},
        "lesionlens": _LESIONLENS,
        "sha256": _SHA256,
    },
}
