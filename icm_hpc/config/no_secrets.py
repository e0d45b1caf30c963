"""Secrets have no place in settings: these are saved in config.yaml, and shown in batch scripts and process lists."""

import re
from collections.abc import Iterator, Mapping

from ..errors import ConfigError
from .written import Tree, Written

NAME = re.compile(
    r".*(PASSWORD|PASSWD|PASSPHRASE|SECRET).*(?<!_PATH)(?<!_FILE)(?<!_DIR)"
    r"|(.*_)?(TOKEN|PASS|PWD|CREDENTIALS?|APIKEY|KEY)(_(ID|KEY|VALUE|[0-9]+))?",
    re.IGNORECASE,
)
# A switch, as of HF_HUB_DISABLE_IMPLICIT_TOKEN=1, or the path of a file.
NO_SECRET = re.compile(r"|[01]|true|false|yes|no|on|off|(/|~/|\./).*", re.IGNORECASE)
SHAPE = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|AKIA[0-9A-Z]{12,}|xox[abp]-[\w-]{10,})"
    r"|://[^/\s:@]*:[^/\s@$]+@"  # user:password@
    r"|\bBearer\s+[^\s$\"'`]{8,}"
)
ASSIGNMENT = re.compile(r"\b([A-Za-z_]\w*)=(\"[^\"]*\"|'[^']*'|[^\s;,&|]*)")
OPTION = re.compile(
    r"--(token|password|passwd|secret|api[-_]key|apikey)[= ](\"[^\"]*\"|'[^']*'|[^\s;,&|]+)", re.IGNORECASE
)
LISTS = {
    "cluster": ("setup", "driver_flags", "server_flags", "server_srun_flags", "server_launcher"),
    "run": ("notify_command",),
}


def require_none(tree: Mapping[str, Tree]) -> None:
    """Raise ConfigError, which does not quote it, for a secret in model.env or in a list of LISTS.

    What a run's own config.yaml holds is not checked again.
    """
    variables = tree.get("model", {}).get("env", {})
    for name, value in variables.items() if isinstance(variables, Mapping) else ():
        if isinstance(value, Written) and not value.saved and is_secret(name, value.text):
            raise ConfigError(f"model.env.{name}: {_remedy(name)}")
    for section, key in ((section, key) for section, keys in LISTS.items() for key in keys):
        lines = tree.get(section, {}).get(key, [])
        for number, line in enumerate(lines if isinstance(lines, list) else []):
            name = _secret_of(line.text) if isinstance(line, Written) and not line.saved else None
            if name is not None:
                raise ConfigError(f"{section}.{key}[{number}]: {name} {_remedy(name)}")


def is_secret(name: str, value: str) -> bool:
    """Return whether a variable looks like a secret, by its name or by the form of its value."""
    return SHAPE.search(value) is not None or bool(NAME.fullmatch(name) and not NO_SECRET.fullmatch(value))


def _secret_of(line: str) -> str | None:
    """Return the name of the secret whose value stands in a shell line; None if a command or a variable gives it."""
    found: Iterator[re.Match[str]] = (match for form in (ASSIGNMENT, OPTION) for match in form.finditer(line))
    for match in found:
        value = match[2].strip("\"'")
        if not re.match(r"\$|`", value) and is_secret(match[1], value):
            return match[1]
    return "it" if SHAPE.search(line) else None


def _remedy(name: str) -> str:
    hub = name.upper() in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "HUGGINGFACEHUB_API_TOKEN")
    login = (
        "run `hf auth login` once in a home folder that the nodes see, or set HF_TOKEN_PATH=FILE"
        if hub
        else f"read it on the node from a file that only you can read (chmod 600), by cluster.setup: export {name}=$(cat FILE)"
    )
    if name.upper() in ("VLLM_API_KEY", "OPENAI_API_KEY"):
        login = f"write {name}=... into the secrets file (~/.config/icm_hpc/secrets.env, chmod 600)"
    return f"is a secret, and settings are saved and shown: {login}"
