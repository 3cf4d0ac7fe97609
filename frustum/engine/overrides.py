"""`key=value` on the dotted path of a recipe: parsed by the field's type, refused with the nearest names.

    apply(recipe, ["optim.lr=3e-4", "data.image_size=96,256", "ema=null", "data=street", "data.root=data/world"])

Imports no torch, so that a typo is answered at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from frustum.config import Config
from frustum.engine.recipe import Recipe
from frustum.errors import ConfigError, nearest_names

C = TypeVar("C", bound=Config)

_REPLACES = {"train.steps": "train.epochs", "train.epochs": "train.steps"}
"""Two ways to say one thing: a value for the one clears the other, so that what was asked for last counts."""


def apply(recipe: C, overrides: Iterable[str]) -> C:
    """A copy of `recipe` (or of any other Config) with every `key=value` set, in order.

    Settings that need each other may stand in any order: one that contradicts what is there yet is set after the others, and those that
    still do are set at once.

    A key is the dotted path of a field (`optim.lr`, `model.depth_bins`) or of an entry of one (`optim.lr_scale.encoder`). A value is a
    number, `true`, `false`, `null`, a word, a list as `1,2` or `[1,2]`, or a JSON object for a whole section. `data=NAME` stands for the
    presets of the recipe's data section, and any other setting wins over them. `train.epochs` replaces `train.steps` and the other way
    round.

    Raises:
        ConfigError: no `=`, an unknown key (with the nearest names) or a value that the field does not allow (with what it does).
    """
    words = list(overrides)
    if isinstance(recipe, Recipe):
        words = [w for name in words if _is_preset(name) for w in _preset(name, recipe)] + [w for w in words if not _is_preset(w)]
    keys = [word.partition("=")[0].strip() for word in words]
    while words:
        late = []
        for override in words:
            key, equals, text = override.partition("=")
            key = key.strip()
            if not equals or not key:
                raise ConfigError(
                    f"{override!r} is not an override: write key=value, for example optim.lr=1e-4 or data.root=/data/nuscenes."
                )
            try:
                recipe = _set(recipe, key.split("."), text.strip(), key)
            except _UnknownSettingError as error:
                raise ConfigError(_unknown(recipe, *error.args)) from None
            except _ContradictionError as error:
                if keys.count(key) > 1:  # the last one counts: their order matters
                    raise
                late.append((override, error))
        if len(late) == len(words):
            return _at_once(recipe, late)
        words = [override for override, _ in late]
    return recipe


def _at_once(recipe: C, late: list[tuple[str, _ContradictionError]]) -> C:
    """`recipe` with all settings, each of which contradicts what is there without the others; what they contradict together is raised."""
    settings = [(key.strip().split("."), text.strip(), key.strip()) for key, _, text in (word.partition("=") for word, _ in late)]
    if len(settings) == 1:
        raise late[0][1]
    return _set_all(recipe, settings)


class _ContradictionError(ConfigError):
    """A section does not allow a value beside its others."""


class _UnknownSettingError(Exception):
    """A section has no such setting. Its arguments: the section, the path from there, and the whole key."""


def paths(config: Config, prefix: str = "") -> list[str]:
    """All dotted paths that `apply` knows, sections left out: `["name", "model.depth_bins", ...]`."""
    found: list[str] = []
    for name, field in type(config).model_fields.items():
        section = _section(getattr(config, name), field)
        found += paths(section, f"{prefix}{name}.") if section is not None else [prefix + name]
    return found


def _is_preset(override: str) -> bool:
    key, equals, text = override.partition("=")
    return key.strip() == "data" and bool(equals) and not text.strip().startswith("{")


def _preset(override: str, recipe: Recipe) -> list[str]:
    name, presets = override.partition("=")[2].strip(), recipe.data.presets
    if name not in presets:
        raise ConfigError(f"data={name} is not known; {nearest_names(name, presets)} Any other folder goes by data.root=FOLDER.")
    return [f"data.{key}={value}" for key, value in presets[name].items()]


def _set(config: C, path: list[str], text: str, key: str) -> C:
    return _with(config, {path[0]: _value(config, path, text, key)}, f"{key}={text}", key.removesuffix(".".join(path)))


def _set_all(config: C, settings: list[tuple[list[str], str, str]]) -> C:
    """`_set` of several (path, text, key), of which sections are validated when all of their values are there."""
    changes: dict[str, Any] = {}
    for name in dict.fromkeys(path[0] for path, _, _ in settings):
        inner = [(path[1:], text, key) for path, text, key in settings if path[0] == name]
        current = getattr(config, name)
        if isinstance(current, Config) and all(path for path, _, _ in inner):
            changes[name] = _set_all(current, inner)
            continue
        draft = config
        for path, text, key in inner:
            draft = draft.model_copy(update={name: _value(draft, [name, *path], text, key)})
        changes[name] = getattr(draft, name)
    path, _, key = settings[0]
    return _with(config, changes, " ".join(f"{key}={text}" for _, text, key in settings), key.removesuffix(".".join(path)))


def _value(config: Config, path: list[str], text: str, key: str) -> Any:
    """What the field `path[0]` becomes."""
    name, rest = path[0], path[1:]
    fields = type(config).model_fields
    if name not in fields:
        raise _UnknownSettingError(config, path, key)
    field, current = fields[name], getattr(config, name)
    if not rest:
        return _parse(text, field, current, key)
    if isinstance(current, dict):
        return _parse(text, field, current, key, entry=".".join(rest))
    section = _section(current, field)
    if section is None:
        parent = key[: -len(".".join(rest)) - 1]
        raise ConfigError(f"{key}: {parent} is a plain value, now {current!r}. Set it with {parent}=VALUE.")
    return _set(section, rest, text, key)


def _with(config: C, changes: dict[str, Any], words: str, prefix: str) -> C:
    """The section with new values, validated as a whole; `words` is what the user wrote, `prefix` the section's path with its dot."""
    # Values are kept as they are (no dump), so that a model's own config class survives.
    values = dict(config)
    for name, value in changes.items():
        values[name] = value
        if prefix + name in _REPLACES and value is not None:
            values[_REPLACES[prefix + name].rpartition(".")[2]] = None
    try:
        return type(config).model_validate(values)
    except ValidationError as error:
        raise _ContradictionError(f"{words} is not allowed: {_reasons(error)}.") from error


def _unknown(recipe: Config, section: Config, path: list[str], key: str) -> str:
    """What is wrong with `key`: `section` does not have `path`. The right word may stand in the wrong section."""
    prefix = key.removesuffix(".".join(path))
    what = f"{prefix.rstrip('.')} has no setting {path[0]!r}" if prefix else f"there is no setting {path[0]!r}"
    hint, there = nearest_names(path[0], type(section).model_fields), []
    if len(path) == 1:
        there = [p for p in paths(recipe) if p.rpartition(".")[2] == path[0]]
    elif not hint.startswith("did you mean"):
        there = [prefix + p for p in paths(section) if p.rpartition(".")[2] == path[-1]]
        there = [p for p in there if p.endswith("." + ".".join(path))] or there
    there.sort(key=lambda p: p.count("."))  # a trunk has settings of the same names further down
    if there:
        hint = "did you mean " + " or ".join(map(repr, there[:3])) + "?"
    return f"{key}: {what}; {hint}"


def _section(value: Any, field: FieldInfo) -> Config | None:
    """The config behind a field: its value, or the defaults of the class it may hold when it is switched off (`ema=null`)."""
    if isinstance(value, Config):
        return value
    for kind in get_args(field.annotation):
        if isinstance(kind, type) and issubclass(kind, Config):
            try:
                return kind()
            except ValidationError:
                return None
    return None


def _parse(text: str, field: FieldInfo, current: Any, key: str, entry: str = "") -> Any:
    """`text` as the field's type. The first reading that validates wins: JSON, a comma-separated list, the plain words.

    With an `entry`, the field is a dictionary and `text` becomes its entry of that name.
    """
    if isinstance(current, Config) and text.startswith("{"):
        # A JSON object changes the named entries of a section, all at once, and keeps the others, and the section's own class.
        try:
            given = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{key}={text} is not valid JSON: {error}.") from error
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
        changes = {name: _value(current, [name], words, f"{key}.{name}") for name, words in texts.items()}
        return _with(current, changes, f"{key}={text}", f"{key}.")
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    adapter: TypeAdapter = TypeAdapter(annotation)
    errors: list[ValidationError] = []
    for candidate in _readings(text):
        try:
            # true and false are not numbers, although Python takes them for 1 and 0
            strict = True if isinstance(candidate, bool) else None
            return adapter.validate_python({**current, entry: candidate} if entry else candidate, strict=strict)
        except ValidationError as error:
            errors.append(error)
    # What is wrong with an entry of a list says more than that a word is no list.
    first = next((error for error in errors if any(item["loc"] and item["type"] != "missing" for item in error.errors())), errors[0])
    about = f" ({field.description})" if field.description else ""
    shown = current.model_dump_json() if isinstance(current, Config) else repr(current)
    raise ConfigError(f"{key}={text} is not allowed: {_reasons(first)}. {key}{about} is now {shown}.")


def _readings(text: str) -> list[Any]:
    """What `text` may mean, the likeliest first."""
    is_bracketed, constants = text[:1] in "([" and text[-1:] in ")]", {"null": None, "none": None, "true": True, "false": False}
    readings: list[Any] = []
    if text.lower() in constants:
        readings = [constants[text.lower()]]
    elif (value := _word(text)) != text:
        readings = [value]
    elif is_bracketed or "," in text:
        readings = [[_word(part) for part in (text[1:-1] if is_bracketed else text).split(",") if part.strip()]]
    readings.append(text)
    if text and "," not in text and text[:1] not in "[({":
        readings.append([_word(text)])  # one entry for a list of any length: data.cameras=CAM_FRONT
    return readings


def _word(text: str) -> Any:
    text = text.strip()
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _reasons(error: ValidationError) -> str:
    """Pydantic's findings in one line: `input should be 'constant', 'step' or 'cosine'`."""
    found: dict[str, None] = {}
    for item in error.errors():
        if item["type"] == "too_short" and len(error.errors()) > 1:
            continue  # what is wrong with its entries is said
        message = item["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list, as 1,2")
        message = message[:1].lower() + message[1:]
        entries = [part for part in item["loc"] if isinstance(part, int)]
        found[f"entry {entries[0] + 1}: {message}" if entries else message] = None
    return "; or ".join(found)
