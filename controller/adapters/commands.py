"""What the command line does about adapters: apply, get, describe, delete. Each asks the gateway that runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from controller.adapters.credentials import Credentials, variable_of
from controller.adapters.describe import describe, table
from controller.adapters.manifest import SecretManifest, load_manifests
from controller.adapters.remote import Remote
from controller.config.model import Config

KIND = ("adapter", "adapters", "modeladapter", "modeladapters")
"""What may be written for the one kind there is."""

Say = Callable[[str], None]


def add_arguments(parser: argparse._MutuallyExclusiveGroup) -> None:
    parser.add_argument("--apply", metavar="FILE", help="have the running gateway want the ModelAdapters in this file")
    parser.add_argument("--get", choices=KIND, metavar="adapters", help="list the adapters")
    parser.add_argument("--describe", nargs=2, metavar=("adapter", "NAME"), help="tell all of one adapter")
    parser.add_argument("--delete", nargs=2, metavar=("adapter", "NAME"), help="have it wanted no more")


def mistake(options: argparse.Namespace) -> str | None:
    """What is wrong with the words given, if anything."""
    for flag in ("describe", "delete"):
        words = getattr(options, flag)
        if words and words[0] not in KIND:
            return f"--{flag} takes adapter NAME, not {' '.join(words)!r}"
    return None


def asked(options: argparse.Namespace) -> bool:
    return bool(options.apply or options.get or options.describe or options.delete)


def act(options: argparse.Namespace, config: Config, environment: Mapping[str, str], say: Say) -> None:
    """Raises ``GatewayRefused``, ``ConfigError`` for a mistake in the manifest, and ``CredentialsUnusable``."""
    remote = Remote(config)
    if options.apply:
        _apply(Path(options.apply), config, environment, remote, say)
    elif options.describe:
        name = options.describe[1]
        say(describe(remote.one(name), remote.events(name)))
    elif options.delete:
        remote.delete(options.delete[1])
        say(f"modeladapter {options.delete[1]} is being deleted")
    else:
        adapters = remote.every()
        say(table(adapters) if adapters else "No adapters found.")


def _apply(file: Path, config: Config, environment: Mapping[str, str], remote: Remote, say: Say) -> None:
    """Secrets first: they stay on this machine, in the file of credentials, and go through no API."""
    manifests = load_manifests(file.absolute(), environment)
    credentials = Credentials(config.credentials_file, config.credentials)
    for manifest in manifests:
        if isinstance(manifest, SecretManifest):
            credentials.keep(manifest.name, manifest.values)
            say(f"secret {manifest.name} kept in {config.credentials_file}")
            if (variable := variable_of(manifest.name)) in environment:
                say(f"  {variable} is set where this runs; where the gateway has it, too, it wins")
    for manifest in manifests:
        if not isinstance(manifest, SecretManifest):
            answer = remote.apply(manifest)
            say(f"modeladapter {manifest.name} applied ({answer['status']['phase']})")
            if unused := manifest.spec.unused:
                say(f"  additionalConfig: {', '.join(unused)}: without effect")
