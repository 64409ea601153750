"""``headrace deploy --external``: which server, which of its models, and its key, which no command line ever shows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import typer

from headrace.cli.exits import WrongUsage

EXTERNAL_PANEL = "An external server, instead of DIR"


class Outward(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says of an external server.

    Attributes:
        url: Its base URL; empty: there is none, and artifacts are deployed.
        model: The server's own name for the model.
        key_variable: The environment variable that has the key; empty without one.
        key_file: The file that has it; None without one.
    """

    url: str = ""
    model: str = ""
    key_variable: str = ""
    key_file: Path | None = None

    def check(self, artifacts: str) -> None:
        """Hold that exactly one thing is to be deployed, and that it is fully named.

        Raises:
            WrongUsage: It is not so.
        """
        if bool(artifacts) == bool(self.url):
            raise WrongUsage(
                "There is nothing to deploy." if not artifacts else "Artifacts and an external server are two things.",
                evidence=f"Artifacts: {artifacts or 'none'}; --external: {self.url or 'none'}.",
                fix="Name a model's folder, or a server: `--external https://host/v1 --external-model NAME`.",
            )
        if self.url and not self.model:
            raise WrongUsage(
                "The external server's model is not named.",
                evidence="There is no --external-model.",
                fix=f"Add --external-model NAME; {self.url.rstrip('/')}/models lists the names.",
            )
        if not self.url and (self.model or self.key_variable or self.key_file):
            raise WrongUsage(
                "There is no external server for this model or key.",
                evidence="--external is missing.",
                fix="Add --external URL.",
            )
        if self.key_variable and self.key_file:
            raise WrongUsage(
                "The key cannot come from two places.",
                evidence="Both --external-key-env and --external-key-file are given.",
                fix="Leave one out.",
            )

    def body(self, *, ask: bool) -> dict[str, str]:
        """What the server is told.

        Args:
            ask: Whether to ask for a key at the terminal, if it was named nowhere and there is one.

        Raises:
            WrongUsage: There is no key where it is said to be.
        """
        return {"base_url": self.url, "model": self.model, "key": self._key(ask=ask)}

    def _key(self, *, ask: bool) -> str:
        if self.key_variable:
            return _there(os.environ.get(self.key_variable, ""), f"The variable {self.key_variable}")
        if self.key_file is not None:
            try:
                return _there(self.key_file.read_text(encoding="utf-8"), f"The file {self.key_file}")
            except (OSError, UnicodeDecodeError) as error:
                raise WrongUsage(
                    "The file of the external server's key cannot be read.",
                    evidence=f"{self.key_file}: {getattr(error, 'strerror', None) or 'it is not text'}.",
                    fix="Check --external-key-file.",
                ) from error
        if ask and sys.stdin.isatty():
            question = f"Key for {self.url} (Enter for none)"
            return str(typer.prompt(question, default="", show_default=False, hide_input=True, err=True)).strip()
        return ""


def _there(text: str, where: str) -> str:
    if not text.strip():
        raise WrongUsage(
            "There is no key for the external server.",
            evidence=f"{where} is empty or not set.",
            fix="Put the key there. A server that wants none needs no option for it.",
        )
    return text.strip()
