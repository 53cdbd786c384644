"""Write the page reference/cli.md from the Typer application when the site is built."""

import re
from pathlib import Path
from typing import Any, get_args

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from n2n_deploy.cli.app import build

PAGE = "reference/cli.md"

_TYPES = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}

_INTRODUCTION = """# Command line

This page is made from the program itself when the site is built; `n2n-deploy COMMAND --help` says the same.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to those of the site."""
    files.append(File.generated(config, PAGE, content=page()))
    return files


def page() -> str:
    """Return the whole page as Markdown."""
    application: Any = typer.main.get_command(build())
    parts = [_INTRODUCTION, f"{_prose(application.epilog)}\n"]
    parts += [_command(name, command) for name, command in application.commands.items()]
    return "\n".join(parts)


def _command(name: str, command: Any) -> str:
    """One command: its help, its usage, its arguments and a table of options for each heading of the help."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    usage = " ".join(["n2n-deploy", name, *map(_usage, arguments), "[OPTIONS]"])
    lines = [f"## {name}", "", _prose(command.help), "", f"```text\n{usage}\n```", ""]
    if arguments:
        lines += _table("Argument", [(f"`{_placeholder(each)}`", _help(each)) for each in arguments])
    headings = dict.fromkeys(getattr(each, "rich_help_panel", None) or "Options" for each in options)
    for heading in headings:
        own = [each for each in options if (getattr(each, "rich_help_panel", None) or "Options") == heading]
        lines += _table(heading, [(_flags(each), _help(each)) for each in own if each.name != "help"])
    return "\n".join(lines)


def _table(heading: str, rows: list[tuple[str, str]]) -> list[str]:
    if not rows:
        return []
    return [f"| {heading} | |", "| --- | --- |", *(f"| {first} | {second} |" for first, second in rows), ""]


def _placeholder(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper()).strip("{}")


def _usage(argument: Any) -> str:
    name = _placeholder(argument)
    return name if argument.required else f"[{name}]"


def _flags(option: Any) -> str:
    """The names of an option, and what it takes."""
    names = [f"`{name}`" for name in (*option.opts, *option.secondary_opts)]
    if option.is_flag:
        return ", ".join(names)
    names[0] = f"`{option.opts[0]} {_value(option)}`"
    return ", ".join(names)


def _value(option: Any) -> str:
    """What an option takes: its metavar, or a word for the type."""
    if option.metavar:
        return str(option.metavar)
    annotation = option.type_descriptor.annotation
    return " ".join(_TYPES[each] for each in get_args(annotation) or (annotation,))


def _help(parameter: Any) -> str:
    """The help of an option or argument, with its default and its environment variable."""
    text = _prose(parameter.help or "")
    if getattr(parameter, "envvar", None):
        text += f" Environment variable: `{parameter.envvar}`."
    if parameter.required:
        return f"{text} **Required.**"
    default = parameter.default
    if isinstance(default, tuple):
        default = " ".join(map(str, default))
    if isinstance(default, int | float | str) and not isinstance(default, bool):
        text += f" Default: `{default}`."
    return text.replace("|", "\\|")


def _prose(text: str) -> str:
    """Help as Markdown: Rich's bold is code, a paragraph that is a command is a block."""
    paragraphs = []
    for paragraph in text.strip().split("\n\n"):
        line = " ".join(paragraph.split())
        bold = re.fullmatch(r"\[bold\](n2n-deploy [^\[]*)\[/\]", line)
        if bold:
            paragraphs.append(f"```sh\n{bold[1]}\n```")
            continue
        # Odd pieces were bold.
        pieces = re.split(r"\[bold\](.*?)\[/\]", line)
        paragraphs.append("".join(f"`{each}`" if place % 2 else _plain(each) for place, each in enumerate(pieces)))
    return "\n\n".join(paragraphs)


def _plain(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
