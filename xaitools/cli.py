"""The command ``xaitools``: run a study, run it over a grid, list what there is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from xaitools.errors import ParameterError, XaitoolsError

_parameters = click.option(
    "-p",
    "--parameter",
    "parameters",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="Set a parameter of the notebook; a list is written A,B,C. Can be repeated.",
)
_preset = click.option(
    "--preset",
    help="The parameters to start from: quick if not given, or a notebook's own if it has no presets.",
)
_quiet = click.option("--no-progress", is_flag=True, help="Show no progress bar.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xaitools")
def main() -> None:
    """Explain neural networks in medical imaging: every study is a notebook, every run a report."""


@main.command()
@click.argument("study")
@_preset
@_parameters
@click.option("--out", type=click.Path(path_type=Path), help="Output folder; output/STUDY/PRESET by default.")
@_quiet
def report(
    study: str,
    preset: str | None,
    parameters: tuple[tuple[str, str], ...],
    out: Path | None,
    no_progress: bool,
) -> None:
    """Run STUDY (a name, or a notebook's path) and write its report.

    An interrupted or failed run resumes when the same command is given again.
    """
    with _plain_errors():
        from xaitools.reports.runner import run_study

        _tell_if_changed(study)
        path = run_study(study, preset=preset, parameters=dict(parameters), out=out, progress=not no_progress)
    click.echo(f"Report: {_short(path)}")


@main.command()
@click.argument("study")
@click.option(
    "--grid",
    multiple=True,
    required=True,
    metavar="NAME=A,B",
    help="Values to try for a parameter. Repeat it for more parameters: every combination is run.",
)
@_preset
@_parameters
@click.option("--out", type=click.Path(path_type=Path), help="Folder; output/STUDY/sweep by default.")
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at a time, here."
)
@click.option("--dask", metavar="ADDRESS", help="Run on this dask scheduler instead.")
@_quiet
def sweep(
    study: str,
    grid: tuple[str, ...],
    preset: str | None,
    parameters: tuple[tuple[str, str], ...],
    out: Path | None,
    jobs: int,
    dask: str | None,
    no_progress: bool,
) -> None:
    """Run STUDY at every point of a grid of parameters, and gather the numbers in one table.

    Points that have already been run are skipped.
    """
    with _plain_errors():
        from xaitools.reports.sweep import sweep as run_sweep

        _tell_if_changed(study)
        path = run_sweep(
            study,
            dict(_grid_values(item) for item in grid),
            preset=preset,
            parameters=dict(parameters),
            out=out,
            jobs=jobs,
            dask=dask,
            progress=not no_progress,
        )
        failed = _failed_runs(path.with_name("runs.csv"))
    click.echo(f"Table: {_short(path)}")
    if failed:
        raise click.ClickException(f"{len(failed)} runs failed:\n" + "\n".join(failed))


@main.command()
def studies() -> None:
    """List the studies, their presets and their parameters."""
    with _plain_errors():
        from xaitools.reports.parameters import presets
        from xaitools.study import notebooks

        for study in notebooks.studies():
            notebook = notebooks.find_notebook(study)
            click.secho(study, bold=True, nl=False)
            click.echo(f"  (presets: {', '.join(presets(notebook)) or 'none'})")
            _tell_if_changed(study)
            for parameter in notebooks.read_parameters(notebook).values():
                declared = (
                    f"  {parameter.name}: {' | '.join(parameter.types)} = {_ellipsis(parameter.default)}"
                )
                click.echo(f"{declared:<44}{parameter.help}" if parameter.help else declared)


@main.command()
def methods() -> None:
    """List the explanation methods: names, options, what each asks and what it needs of a network."""
    with _plain_errors():
        from xaitools import study

        click.echo(study.method_list(), nl=False)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument(
    "arguments",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[FOLDER] [OPTIONS OF JUPYTERLAB, as --no-browser]...",
)
def lab(arguments: tuple[str, ...]) -> None:
    """Open JupyterLab on copies of the notebooks in FOLDER; my-notebooks by default.

    Copies that are there already stay as they are. The notebooks that reports are made from are not touched.
    """
    named = bool(arguments) and not arguments[0].startswith("-")
    folder, options = Path(arguments[0] if named else "my-notebooks"), arguments[int(named) :]
    with _plain_errors():
        from xaitools.reports.working_copy import copy_notebooks, open_lab

        for copy in copy_notebooks(folder):
            click.echo(f"Copied: {_short(copy)}")
        raise click.exceptions.Exit(open_lab(folder, options))


@main.group(invoke_without_command=True)
@click.pass_context
def cache(context: click.Context) -> None:
    """Show what the cache holds: trained weights and prepared volumes, by study, with size and age.

    It lies where XAITOOLS_CACHE says, else in ~/.cache/xaitools. Whatever is deleted from it is made again when it is
    needed.
    """
    if context.invoked_subcommand is None:
        from xaitools.cache import cache_dir
        from xaitools.kept import pieces, summary

        with _plain_errors():
            click.echo(summary(cache_dir(), pieces(cache_dir())))


@cache.command()
def verify() -> None:
    """Read everything in the cache and compare it with its checksums; ends with 1 if anything is damaged.

    Nothing is changed: a run makes what is damaged again.
    """
    from xaitools.cache import cache_dir
    from xaitools.kept import pieces

    with _plain_errors():
        found = pieces(cache_dir())
        damaged = [reason for piece in found if (reason := piece.damage())]
    for reason in damaged:
        click.echo(reason)
    if damaged:
        raise click.ClickException(
            f"{len(damaged)} of {len(found)} pieces are made again when they are needed."
        )
    click.echo(f"All {len(found)} pieces are as they were written.")


@cache.command()
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Also what was made more days ago; 0 deletes all.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
def prune(older_than: float | None, dry_run: bool) -> None:
    """Delete what no run can use: what is damaged, or was left by a run that was killed."""
    from xaitools.cache import cache_dir
    from xaitools.kept import in_words, pieces, useless

    with _plain_errors():
        freed = 0
        for piece, reason in useless(pieces(cache_dir()), older_than):
            click.echo(f"{reason}: {piece.kind}, {in_words(piece.size)}")
            freed += piece.size
            if not dry_run:
                piece.delete()
    click.echo(f"{'Would free' if dry_run else 'Freed'} {in_words(freed)}.")


class _WrongParameter(click.ClickException):
    exit_code = 2


@contextmanager
def _plain_errors() -> Iterator[None]:
    """One clear line instead of a traceback for what goes wrong outside this program."""
    try:
        yield
    except (XaitoolsError, OSError) as error:
        kind = _WrongParameter if isinstance(error, ParameterError) else click.ClickException
        raise kind(str(error)) from error
    except KeyboardInterrupt:
        click.echo("\nInterrupted. The same command resumes where this one stopped.", err=True)
        raise click.exceptions.Exit(130) from None


def _grid_values(item: str) -> tuple[str, list[str]]:
    name, equals, values = item.partition("=")
    if not (name and equals and values):
        raise ParameterError(f"--grid {item}: write NAME=A,B")
    return name, values.split(",")


def _tell_if_changed(study: str) -> None:
    """Say on the side that what runs is not what was shipped."""
    from xaitools.reports.working_copy import is_changed
    from xaitools.study.notebooks import find_notebook

    if is_changed(find_notebook(study)):
        click.echo(
            f"Note: the notebook of {study} was changed since it was shipped, and is used as it is now; "
            "to play with copies: xaitools lab",
            err=True,
        )


def _failed_runs(table: Path) -> list[str]:
    import csv

    with table.open(encoding="utf-8", newline="") as file:
        return [f"  {row['error']}" for row in csv.DictReader(file) if row["error"]]


def _short(path: Path) -> Path:
    """Relative to the current folder, if it lies there."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _ellipsis(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
