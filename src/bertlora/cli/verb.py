"""What a verb is: a click command with an example, `--json` and `--debug`; and the group of all verbs."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import click

from bertlora.errors import InputError, suggestion

WIDTH = 100
COMPLETION = {
    "bash": 'eval "$(_BERTLORA_COMPLETE=bash_source bertlora)"',
    "zsh": 'eval "$(_BERTLORA_COMPLETE=zsh_source bertlora)"',
    "fish": "_BERTLORA_COMPLETE=fish_source bertlora | source",
}
QUIET = "bertlora.quiet"
QUIET_HELP = "print no progress, notes and cautions on stderr, only errors"
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": WIDTH}


class UnmetError(Exception):
    """A result that does not meet what the command line requires. It is printed all the same; the exit status is 1.

    Args:
        result: what the verb returns.
        reason: a line that says which figure fails.
    """

    def __init__(self, result: dict[str, Any], reason: str) -> None:
        super().__init__(reason)
        self.result = result


class Several(click.Option):
    """An option that takes one or more values: `--data train=a.csv test=b.csv`. Its value is a tuple."""

    def __init__(self, flag: str, **more: Any) -> None:
        super().__init__([flag], multiple=True, **more)


class Argument(click.Argument):
    """A positional argument with a help text, which older versions of click do not have."""

    def __init__(self, name: str, *, text: str, **more: Any) -> None:
        super().__init__([name], **more)
        self.text = text


class _HelpOption(click.Command):
    """A command whose option `--help` is worded like the other options."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Returns the option."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.help = "show this page"
        return option


class Verb(_HelpOption):
    """A command whose help page ends with an example.

    Attributes:
        example: a command line.
    """

    def __init__(self, name: str, *, example: str, **more: Any) -> None:
        super().__init__(name, context_settings=SETTINGS | {"allow_extra_args": True}, **more)
        self.example = example

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the words after the verb; a word too many is an error."""
        options = {flag: param for param in self.get_params(ctx) for flag in param.opts if flag.startswith("-")}
        try:
            if not ctx.resilient_parsing:
                _check_values(args, options)
            rest = super().parse_args(ctx, _spread(args, options))
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # click leaves it out if an option has no value
            raise
        if ctx.args and not ctx.resilient_parsing:
            raise InputError(f"argument '{ctx.args[0]}' is unknown; see '{ctx.command_path} --help'")
        return rest

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the positional arguments."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the positional arguments, then the options under the titles of their groups."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            if isinstance(param, Argument):
                sections["Arguments"].append((param.make_metavar(ctx), param.text))
            elif (record := param.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(param, "group", "Options"), []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=26)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the example."""
        with formatter.section("Example"):
            formatter.write(f"{'':>{formatter.current_indent}}{self.example}\n")


class Verbs(_HelpOption, click.Group):
    """The group of all verbs, listed in the order in which they are registered."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the verbs."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Returns the verb that the first word names.

        Raises:
            InputError: there is no such verb.
        """
        if args[0] not in self.commands and not ctx.resilient_parsing:
            expected = ", ".join(self.commands)
            raise InputError(
                f"verb '{args[0]}' is unknown; expected one of {expected}{suggestion(args[0], self.commands)}"
            )
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes how to get a verb's page, and shell completion."""
        formatter.write_paragraph()
        formatter.write_text("'bertlora VERB --help' shows the options of a verb and an example.")
        with formatter.section("Shell completion, a line for the start-up file of"):
            for shell, line in COMPLETION.items():
                formatter.write(f"  {shell:<4}  {line}\n")


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    context_settings=SETTINGS,
    subcommand_metavar="VERB ...",
    help="Texts and labels in, a LoRA classifier on a small BERT out: trained in minutes, evaluated honestly.",
)
@click.option("--version", is_flag=True, help="print the version")
@click.pass_context
def verbs(ctx: click.Context, version: bool) -> None:
    """Prints the version, or the help page if no verb is given."""
    if version:
        from bertlora import __version__

        click.echo(__version__)
        ctx.exit()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def verb(
    summary: str,
    example: str,
    *params: click.Parameter,
    show: Callable[[dict[str, Any]], None] | None = None,
    name: str = "",
    messages: bool = False,
) -> Callable[[Callable[..., dict[str, Any] | None]], Verb]:
    """Registers the decorated function as a verb.

    Args:
        summary: what it does, in a sentence.
        example: a command line.
        params: its arguments and options, except `--json` and `--debug`.
        show: prints what the function returns, for people. Without it the function prints its results itself, and gets
            `as_json`.
        name: the verb; the function's own name if empty.
        messages: whether it prints progress or notes on stderr; then it takes `--quiet`.
    """
    json = click.Option(["--json", "as_json"], is_flag=True, help="print one JSON object on stdout")
    quiet = click.Option(["--quiet"], is_flag=True, expose_value=False, callback=_set_quiet, help=QUIET_HELP)
    debug = click.Option(["--debug"], is_flag=True, expose_value=False, help="show the traceback of an error")

    def register(run: Callable[..., dict[str, Any] | None]) -> Verb:
        def callback(as_json: bool, **options: Any) -> None:
            if show is None:
                run(as_json=as_json, **options)
                return
            unmet = None
            try:
                result = run(**options)
            except UnmetError as found:
                result, unmet = found.result, found
            from bertlora.cli.console import print_json

            if result is not None:
                print_json(result) if as_json else show(result)
            if unmet:
                click.echo(f"bertlora: {unmet}", err=True)
                click.get_current_context().exit(1)

        made = Verb(
            name or run.__name__,
            callback=callback,
            params=[*params, *([quiet] if messages else []), json, debug],
            help=summary,
            short_help=summary.rstrip("."),
            example=example,
        )
        verbs.add_command(made)
        return made

    return register


def is_quiet() -> bool:
    """Returns whether the verb that runs was given `--quiet`."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(QUIET))


def _set_quiet(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[QUIET] = value


def _check_values(args: Sequence[str], options: Mapping[str, click.Parameter]) -> None:
    """Raises BadOptionUsage if an option is followed by another one; click would take its name as the value."""
    for word, value in pairwise(args):
        if word == "--":
            break
        option = options.get(word)
        if isinstance(option, click.Option) and not option.is_flag and value in options:
            raise click.BadOptionUsage(word, f"Option '{word}' requires an argument.")


def _spread(args: Sequence[str], options: Mapping[str, click.Parameter]) -> list[str]:
    """Returns the words with `--data A B` as `--data A --data B`; click takes one value after an option's name."""
    words: list[str] = []
    flag, values = "", 0
    for word in args:
        if word.startswith("-"):
            flag, values = word if isinstance(options.get(word), Several) else "", 0
        else:
            words += [flag] if flag and values else []
            values += 1
        words.append(word)
    return words
