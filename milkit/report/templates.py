"""Templates of pages that load nothing from elsewhere, and run one script, by its digest: no injected one."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


def offline_templates(folder: Path, script: str, style: str) -> Environment:
    """The templates of a folder, which escape all that comes from data, with ``script``, ``style`` and ``policy``.

    Args:
        folder: Of the templates, the script and the style sheet.
        script: The script's file there.
        style: The style sheet's.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    code = (folder / script).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii")
    environment.globals |= {
        "style": Markup((folder / style).read_text(encoding="utf-8")),
        "script": Markup(code),
        "policy": (
            f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'"
        ),
    }
    return environment
