"""The JSON Schema agrees with the reader: shipped files validate, and broken scenarios whose fault is
one of structure, type, unit or range (first comment "[structure]") do not. Needs jsonschema and PyYAML;
exits 77 (skipped) without them."""

import json
import pathlib
import re
import sys

try:
    import jsonschema
    import yaml
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Loader(yaml.SafeLoader):
    """SafeLoader that leaves dates, and yes and no, as text, as YAML 1.2 does."""


Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


def load(path):
    with open(path, encoding="utf-8") as stream:
        return yaml.load(stream, Loader=Loader)


def validators():
    folder = ROOT / "scenarios"
    schema = json.loads((folder / "scenario.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    result = {"scenario": jsonschema.Draft7Validator(schema)}
    for part in ("model", "cluster", "profile"):
        # The part schemas refer to scenario.schema.json; here the reference is resolved in place.
        text = (folder / f"{part}.schema.json").read_text().replace("scenario.schema.json#", "#")
        result[part] = jsonschema.Draft7Validator(
            {**json.loads(text), "definitions": schema["definitions"]}
        )
    return result


def main():
    checks = validators()
    failures = []
    shipped = [("scenario", path) for path in sorted((ROOT / "scenarios").glob("*.yaml"))]
    shipped.append(("scenario", ROOT / "tests" / "scenario" / "every_key.yaml"))
    for part in ("model", "cluster", "profile"):
        shipped += [
            (part, path) for path in sorted((ROOT / "scenarios" / f"{part}s").glob("*.yaml"))
        ]
    for kind, path in shipped:
        if ROOT / "scenarios" in path.parents and not path.read_text().startswith(
            "# yaml-language-server: $schema="
        ):
            failures.append(f"{path.name} does not begin with the line that names its schema")
        for error in checks[kind].iter_errors(load(path)):
            failures.append(
                f"{path.name} does not validate: {error.json_path}: {error.message[:200]}"
            )
    num_broken = 0
    for path in sorted((ROOT / "tests" / "scenario" / "broken").glob("*.yaml")):
        if not path.read_text().startswith("# [structure]"):
            continue
        num_broken += 1
        if checks["scenario"].is_valid(load(path)):
            failures.append(f"{path.name} validates, but the reader refuses it")
    print(f"{len(shipped)} shipped files, {num_broken} broken scenarios, {len(failures)} failures")
    print("\n".join(failures))
    return 1 if failures or num_broken < 20 else 0


if __name__ == "__main__":
    sys.exit(main())
