"""`stn`, and `python -m stn_cli`."""

from stn_cli.cli.main import app


def main() -> None:
    app()


if __name__ == "__main__":
    main()
