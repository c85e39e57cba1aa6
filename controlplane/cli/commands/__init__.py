"""One module per group of commands; each gives a `typer.Typer` that `main` puts together."""
