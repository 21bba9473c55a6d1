"""The three registries: names to factory functions for encoders, cohorts and heads.

A factory is found in one of two ways: a package lists it under the entry-point group ``milkit.encoders``,
``milkit.cohorts`` or ``milkit.heads`` (this is how our own are found), or a file given by ``--plugin`` registers it
with the decorator ``@ENCODERS.register("my-vit")``. Listing the names imports nothing; only the factory
asked for is loaded. The factory's signature is its documentation and the type of its settings.
"""

import difflib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from milkit.errors import SettingsError, UnknownName

Factory = Callable[..., Any]


def unknown_name(kind: str, name: str, known: list[str]) -> UnknownName:
    """Say that there is no ``kind`` of this name, with the nearest name and the known ones."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UnknownName(f"No {kind} is called '{name}'.{hint} Known: {', '.join(known) or 'none'}.")


class Registry:
    """The factories of one kind, by name."""

    def __init__(self, kind: str, group: str) -> None:
        """Name what is registered (``kind``, for messages) and the entry-point ``group`` that lists it."""
        self.kind = kind
        self.group = group
        self._registered: dict[str, Factory] = {}

    def register(self, name: str) -> Callable[[Factory], Factory]:
        """Register the decorated factory under ``name``; a name that is taken is an error."""
        if name in self.names():
            msg = f"The {self.kind} name '{name}' is taken already; register yours under another name."
            raise SettingsError(msg)

        def decorator(factory: Factory) -> Factory:
            if not inspect.isfunction(factory):
                msg = f"The {self.kind} '{name}' was registered as a class; register a function that returns it."
                raise SettingsError(msg)
            self._registered[name] = factory
            return factory

        return decorator

    def names(self) -> list[str]:
        """All names, sorted; imports none of the factories."""
        return sorted({*self._registered, *(point.name for point in entry_points(group=self.group))})

    def get(self, name: str) -> Factory:
        """The factory called ``name``; ``UnknownName`` tells the nearest name and the known ones."""
        if name in self._registered:
            return self._registered[name]
        for point in entry_points(group=self.group):
            if point.name == name:
                return self._load(point)
        raise unknown_name(self.kind, name, self.names())

    def build(self, name: str, arguments: Mapping[str, Any], *positional: Any) -> Any:
        """Call the factory ``name``; arguments of the wrong name or type are a ``SettingsError`` that names them."""
        from pydantic import ConfigDict, ValidationError, validate_call

        factory = self.get(name)
        call = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(factory)
        try:
            return call(*positional, **arguments)
        except ValidationError as error:
            if not error.title.endswith(factory.__name__):
                raise
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            known = ", ".join(inspect.signature(factory).parameters)
            msg = f"The {self.kind} '{name}' cannot be made from these arguments ({faults}); it takes {known}."
            raise SettingsError(msg) from None

    def _load(self, point: EntryPoint) -> Factory:
        try:
            factory: Factory = point.load()
        except (ImportError, AttributeError) as error:
            package = point.module.partition(".")[0]
            spec = importlib.util.find_spec(package)
            found = spec.origin if spec else "nowhere"
            error.add_note(
                f"{self.group} '{point.name}' should come from '{point.value}', and Python found '{package}' at "
                f"{found}. "
                "If that is another project's package, install milkit into an environment of its own."
            )
            raise
        return factory


ENCODERS = Registry("encoder", "milkit.encoders")
COHORTS = Registry("cohort", "milkit.cohorts")
HEADS = Registry("head", "milkit.heads")


def load_plugin(path: Path) -> None:
    """Execute a Python file, so that the factories that it registers can be used by name."""
    if not path.is_file():
        msg = f"The plugin file {path} does not exist; give the path of a Python file that registers a factory."
        raise SettingsError(msg)
    name = f"milkit_plugin_{path.resolve()}"
    if name in sys.modules:  # named twice
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        msg = f"The plugin {path} is not a Python file; give a file that ends in .py."
        raise SettingsError(msg)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, SettingsError):
            raise
        msg = f"The plugin {path} cannot be executed ({type(error).__name__}: {error}); mend it there."
        raise SettingsError(msg) from error
