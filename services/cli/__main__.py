"""`millrace`, and `python -m services.cli`."""

from services.cli.app import app


def main() -> None:
    app()


if __name__ == "__main__":
    main()
