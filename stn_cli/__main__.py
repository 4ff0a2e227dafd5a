"""`stn`, and `python -m stn_cli`."""


def main() -> None:
    from stn_cli.cli.main import app  # noqa: PLC0415  the processes of a crew import this module, too

    app()


if __name__ == "__main__":
    main()
